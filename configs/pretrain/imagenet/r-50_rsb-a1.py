# ResNet-50, RSB A1, LAMB, 600 epochs: the pre-training of Table 3's "R-50 (A1)".
# Rate: 5e-3 at batch 2048 (arXiv 2110.00476, Table 2).
_base_ = '../../_base_/recipes/rsb-a1.py'
from bocb_mm.backbones import get_spec

model = get_spec('R-50').classifier(1000)
