# ResNet-50, RSB A2 with Adan, 300 epochs: the pre-training of Table 3's "R-50 (Adan)".
# What Adan's authors change for ResNet-50 under this recipe (sail-sg/Adan, CV/timm/supervised.md and
# args_res50_300.yaml): 0.015 at batch 2048 for 200 and 300 epochs (0.03 for 100), decay 0.02 on all
# parameters, gradient norm clipped to 5, 60 epochs of warm-up, minimum rate 1e-5, no repeated
# augmentation.
_base_ = '../../_base_/recipes/rsb-a2.py'
from bocb_mm.backbones import get_spec

model = get_spec('R-50').classifier(1000)
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True,
        type='bocb_mm.Adan',
        lr=0.015,
        betas=(0.98, 0.92, 0.99),
        weight_decay=0.02,
        max_grad_norm=5.0,
    ),
    paramwise_cfg=dict(excluded_decay_mult=1.0),
)
train_dataloader = dict(sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, end=60, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=60),
]
