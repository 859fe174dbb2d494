# Table 1, CAF-12: RSB A2 recipe at 224 x 224.
_base_ = '../../_base_/recipes/rsb-a2_cifar_224.py'
from bocb_mm.backbones import get_spec

model = get_spec('CAF-12').classifier(100)
