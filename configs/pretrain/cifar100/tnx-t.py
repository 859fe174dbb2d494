# Table 1, TNX-T: DeiT recipe at 224 x 224.
_base_ = '../../_base_/recipes/deit_cifar_224.py'
from bocb_mm.backbones import get_spec

model = get_spec('TNX-T').classifier(100)
