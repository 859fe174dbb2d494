# ResNet-50, PyTorch recipe, SGD, 100 epochs: the pre-training of Table 3's "R-50 (SGD)".
# Rate: Table A3, 0.1 at batch 256 (mmpretrain's resnet50_8xb32_in1k has the same).
_base_ = '../../_base_/recipes/pytorch.py'
from bocb_mm.backbones import get_spec

model = get_spec('R-50').classifier(1000)
