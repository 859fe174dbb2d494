# Table 3, pose, "Swin-T (AdamW)": top-down 256x192 from OpenMMLab's Swin-T, which AdamW pre-trained.
# Stochastic depth 0.2 as in mmpose (td-hm_swin-t-p4-w7_8xb32-210e_coco-256x192).
_base_ = './_base_/topdown_coco_256x192.py'
pretraining = 'AdamW'
pretrained = 'mmpretrain://swin-tiny_16xb64_in1k'
pretrained_command = (
    'bocb dist configs/pretrain/imagenet/swin-t_convnext.py 8 '
    '--cfg-options optim_wrapper.accumulative_counts=4'
)
model = dict(
    backbone=dict(_delete_=True, type='bocb_mm.Swin-T', out_indices=(3,), drop_path_rate=0.2),
    head=dict(in_channels=768),
)
