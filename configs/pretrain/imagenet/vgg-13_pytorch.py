# VGG-13-BN, PyTorch recipe, SGD, 100 epochs: the pre-training of Table 3's "VGG (SGD)".
# Rate: Table A3, 0.1 at batch 256 (mmpretrain's vgg13bn_8xb32_in1k has the same).
_base_ = '../../_base_/recipes/pytorch.py'
from bocb_mm.backbones import get_spec

model = get_spec('VGG-13').classifier(1000)
