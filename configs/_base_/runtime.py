# What the quickstart and the small real data sets share: what a run does beside training, and AdamW.
# Toolbox (`default_scope`), data, network and length are the config's own.
_base_ = './hooks.py'
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    **_base_.bocb_hooks,
)
custom_hooks = []
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
log_processor = dict(by_epoch=True)
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='bocb_mm.OptimWrapperConstructor',
    optimizer=dict(type='bocb_mm.AdamW', lr=2e-3, weight_decay=0.05),
)
train_cfg = dict(by_epoch=True)
val_cfg = dict()
test_cfg = dict()
