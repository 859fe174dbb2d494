# Table 1, Swin-T: ConvNeXt recipe at 224 x 224.
_base_ = '../../_base_/recipes/convnext_cifar_224.py'
from bocb_mm.backbones import get_spec

model = get_spec('Swin-T').classifier(100)
