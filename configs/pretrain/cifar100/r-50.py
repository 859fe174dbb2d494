# Table 1, R-50: PyTorch recipe at 32 x 32, in its form for such images.
_base_ = '../../_base_/recipes/pytorch_cifar_32.py'
from bocb_mm.backbones import get_spec

model = get_spec('R-50').classifier(100, cifar=True)
