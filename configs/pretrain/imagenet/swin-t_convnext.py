# Swin-T, ConvNeXt recipe (its training setting in Table A1), AdamW, 300 epochs: the pre-training of
# Table 3's "Swin-T (AdamW)".
# Rate: 4e-3 at batch 4096, ConvNeXt's, which is Swin's own 1e-3 at batch 1024 scaled with the batch.
_base_ = '../../_base_/recipes/convnext.py'
from bocb_mm.backbones import get_spec

model = get_spec('Swin-T').classifier(1000)
