# The paper's RetinaNet fine-tuning (A.2): 12 epochs, batch 16, rate cut at epochs 8 and 11 after
# 500 iterations of warm-up; SGD 0.01 / 0.9 / 1e-4 is mmdet's setting for ResNet-50.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    './datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
    './hooks.py',
]
recipe = '1x'
gamma = 3  # threshold of eq. 1 on COCO (A.2)
optim_wrapper = dict(
    constructor='bocb_mm.OptimWrapperConstructor',
    optimizer=dict(_delete_=True, type='bocb_mm.SGD', lr=0.01, momentum=0.9, weight_decay=1e-4),
)
default_hooks = {{_base_.bocb_hooks}}
