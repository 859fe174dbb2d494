# COCO 2017 detection: shorter side 800, longer at most 1333 (paper, A.2), as mmdet ships it.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'
data_root_variable = 'BOCB_DATA_ROOT'
data_root = '{{$BOCB_DATA_ROOT:data}}/coco/'
# 4 GPUs x 4 = 16 (A.2); persistent workers as in mmdet.
train_dataloader = dict(
    batch_size=4, num_workers=4, pin_memory=True, dataset=dict(data_root=data_root)
)
val_dataloader = dict(num_workers=4, pin_memory=True, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
