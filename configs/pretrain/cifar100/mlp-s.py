# Table 1, MLP-S: DeiT recipe at 224 x 224.
_base_ = '../../_base_/recipes/deit_cifar_224.py'
from bocb_mm.backbones import get_spec

model = get_spec('MLP-S').classifier(100)
