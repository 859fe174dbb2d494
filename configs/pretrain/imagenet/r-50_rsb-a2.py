# Table 2, R-50: RSB A2, LAMB, 300 epochs; also the pre-training of Table 3's "R-50 (A2)".
# Rate: Table A3, 5e-3 at batch 2048.
_base_ = '../../_base_/recipes/rsb-a2.py'
from bocb_mm.backbones import get_spec

model = get_spec('R-50').classifier(1000)
