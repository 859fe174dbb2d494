# Table 1, RVGG-A1: PyTorch recipe at 224 x 224.
_base_ = '../../_base_/recipes/pytorch_cifar_224.py'
from bocb_mm.backbones import get_spec

model = get_spec('RVGG-A1').classifier(100)
