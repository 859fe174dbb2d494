# ResNet-50, PyTorch recipe, LARS, 100 epochs: the pre-training of Table 3's "R-50 (LARS)".
# Rate: no source for LARS at batch 256. Extrapolated by the optimizer catalog, ten times SGD's: with a
# trust coefficient of 0.001 a rate of 1 moves a layer by 0.1 % of its norm. Decay: SGD's.
_base_ = '../../_base_/recipes/pytorch.py'
from bocb_mm.backbones import get_spec

model = get_spec('R-50').classifier(1000)
optim_wrapper = dict(optimizer=dict(type='bocb_mm.LARS', lr=1.0, momentum=0.9, weight_decay=1e-4))
