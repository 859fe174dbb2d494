"""mmengine hooks; importing this package registers them."""

from bocb_mm.hooks import divergence as divergence
from bocb_mm.hooks import layer_metrics as layer_metrics
from bocb_mm.hooks import pretrained as pretrained
from bocb_mm.hooks import run_record as run_record
from bocb_mm.hooks import safe_checkpoint as safe_checkpoint
from bocb_mm.hooks import schedule_free as schedule_free
from bocb_mm.hooks import signals as signals
from bocb_mm.hooks import speed as speed
