# ResNet-50, RSB A2 with Adan, 300 epochs: the pre-training of Table 3's "R-50 (Adan)".
# Rate: 0.03 at batch 2048, decay 0.02, from the setting that Adan's authors give for ResNet-50 under
# this recipe (sail-sg/Adan).
_base_ = '../../_base_/recipes/rsb-a2.py'
from bocb_mm.backbones import get_spec

model = get_spec('R-50').classifier(1000)
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='bocb_mm.Adan', lr=0.03, betas=(0.98, 0.92, 0.99), weight_decay=0.02
    )
)
