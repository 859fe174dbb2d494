# The paper's top-down pose fine-tuning (A.2): SimpleBaseline head, 256x192, 210 epochs with the rate
# cut at 170 and 200; Adam 5e-4 at batch 512 is mmpose's setting, of 8 GPUs x 64. The paper had 4 GPUs
# and names no batch: 4 x 128 here.
_base_ = [
    'mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py',
    './hooks.py',
]
recipe = '210e'
gamma = 3  # threshold of eq. 1 on COCO (A.2)
data_root_variable = 'BOCB_DATA_ROOT'
data_root = '{{$BOCB_DATA_ROOT:data}}/coco/'
train_dataloader = dict(
    batch_size=128, num_workers=8, pin_memory=True, dataset=dict(data_root=data_root)
)
val_dataloader = dict(
    num_workers=4,
    pin_memory=True,
    dataset=dict(
        data_root=data_root,
        bbox_file=data_root
        + 'person_detection_results/COCO_val2017_detections_AP_H_56_person.json',
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/person_keypoints_val2017.json')
test_evaluator = val_evaluator
optim_wrapper = dict(
    constructor='bocb_mm.OptimWrapperConstructor',
    optimizer=dict(_delete_=True, type='bocb_mm.Adam', lr=5e-4, weight_decay=0.0),
)
env_cfg = dict(cudnn_benchmark=True)  # images of one size
default_hooks = {{_base_.bocb_hooks}}
