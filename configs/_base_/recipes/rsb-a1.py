# RSB A1 (arXiv 2110.00476, Table 2; mmpretrain's resnet50_8xb256-rsb-a1-600e_in1k), which pre-trained
# Table 3's "R-50 (A1)": A2 for 600 epochs with smoothed labels, Mixup 0.2 and weight decay 0.01.
_base_ = './rsb-a2.py'
recipe = 'rsb-a1'
model = dict(
    head=dict(
        loss=dict(
            _delete_=True,
            type='LabelSmoothLoss',
            label_smooth_val=0.1,
            mode='original',
            use_sigmoid=True,
        )
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2), dict(type='CutMix', alpha=1.0)]),
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.01))
train_cfg = dict(max_epochs=600)
