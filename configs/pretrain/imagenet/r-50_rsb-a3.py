# ResNet-50, RSB A3, LAMB, 100 epochs: the pre-training of Table 3's "R-50 (A3)".
# Rate: Table A3, 8e-3 at batch 2048.
_base_ = '../../_base_/recipes/rsb-a3.py'
from bocb_mm.backbones import get_spec

model = get_spec('R-50').classifier(1000)
