# ConvNeXt-T, ConvNeXt recipe, AdamW, 300 epochs: the pre-training of Table 3's "CNX-T (AdamW)".
# Rate: 4e-3 at batch 4096, ConvNeXt's own (mmpretrain's convnext-tiny_32xb128_in1k has the same).
_base_ = '../../_base_/recipes/convnext.py'
from bocb_mm.backbones import get_spec

model = get_spec('CNX-T').classifier(1000)
