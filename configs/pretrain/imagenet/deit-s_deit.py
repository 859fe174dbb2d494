# Table 2, DeiT-S: DeiT recipe, AdamW, 300 epochs.
# Rate: Table A3, 1e-3 at batch 1024, which is DeiT's 5e-4 x batch / 512.
_base_ = '../../_base_/recipes/deit.py'
from bocb_mm.backbones import get_spec

model = get_spec('DeiT-S').classifier(1000)
