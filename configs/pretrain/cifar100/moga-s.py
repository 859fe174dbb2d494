# Table 1, Moga-S: ConvNeXt recipe at 32 x 32, in its form for such images.
_base_ = '../../_base_/recipes/convnext_cifar_32.py'
from bocb_mm.backbones import get_spec

model = get_spec('Moga-S').classifier(100, cifar=True)
