"""Every backbone in every toolbox: forward, loss, backward, predict, on small odd-sized images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict

from bocb_mm.backbones import get_spec, list_backbones

TWENTY = list_backbones()


@pytest.fixture(autouse=True)
def _seeded(toolboxes, no_threads):
    torch.manual_seed(0)


def without_gradient(model):
    return [k for k, p in model.named_parameters() if p.grad is None]


def check_losses(losses):
    total = sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if 'loss' in k)
    assert torch.isfinite(total)
    total.backward()


@pytest.mark.parametrize('name', TWENTY)
def test_classification(name):
    from mmpretrain.registry import MODELS
    from mmpretrain.structures import DataSample

    spec = get_spec(name)
    fixed = spec.fixed_size or name in ('AlexNet', 'VGG-13')
    h, w = (224, 224) if fixed else (65, 70)
    model = MODELS.build(spec.classifier(5))
    model.backbone.init_weights()
    model.head.init_weights()
    x = torch.randn(2, 3, h, w)
    samples = [DataSample().set_gt_label(i) for i in (1, 3)]
    model.train()
    check_losses(model(x, samples, mode='loss'))
    assert without_gradient(model) == []
    model.eval()
    with torch.no_grad():
        predicted = model(x, samples, mode='predict')
    assert predicted[0].pred_score.shape == (5,)
    assert float(predicted[0].pred_score.sum()) == pytest.approx(1, abs=1e-4)


def retinanet(spec, **backbone):
    width = 16
    return dict(
        type='mmdet.RetinaNet',
        backbone=dict(type=spec.type, out_indices=spec.fpn_out_indices, **backbone),
        neck=dict(
            type='mmdet.FPN', in_channels=spec.fpn_in_channels, out_channels=width,
            add_extra_convs='on_output', num_outs=5,
        ),
        bbox_head=dict(
            type='mmdet.RetinaHead', num_classes=3, in_channels=width, stacked_convs=1,
            feat_channels=width,
            anchor_generator=dict(
                type='mmdet.AnchorGenerator', octave_base_scale=4, scales_per_octave=3,
                ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64, 128],
            ),
        ),
        train_cfg=dict(
            assigner=dict(
                type='mmdet.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0,
                ignore_iof_thr=-1,
            ),
            sampler=dict(type='mmdet.PseudoSampler'), allowed_border=-1, pos_weight=-1,
        ),
        test_cfg=dict(
            nms_pre=20, min_bbox_size=0, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=10,
        ),
    )  # fmt: skip


def detection_sample(h, w, box):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    sample = DetDataSample()
    sample.set_metainfo(
        dict(img_shape=(h, w), ori_shape=(h, w), pad_shape=(h, w), scale_factor=(1.0, 1.0))
    )
    sample.gt_instances = InstanceData(bboxes=torch.tensor([box]), labels=torch.tensor([1]))
    return sample


@pytest.mark.parametrize('name', TWENTY)
def test_detection(name):
    from mmdet.registry import MODELS

    spec = get_spec(name)
    # Mixer works where it was built for the one image size
    h, w, more = (80, 112, dict(img_size=(80, 112))) if spec.fixed_size else (87, 109, {})
    model = MODELS.build(ConfigDict(retinanet(spec, **more)))
    model.backbone.init_weights()
    model.bbox_head.init_weights()
    x = torch.randn(2, 3, h, w)
    samples = [detection_sample(h, w, [5.0, 8.0, 40.0, 50.0]) for _ in range(2)]
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = (
                1.0  # predict with the statistics of this batch: RepVGG's maps explode
            )
    model.train()
    check_losses(model(x, samples, mode='loss'))
    assert without_gradient(model) == []
    model.eval()
    with torch.no_grad():
        (result,) = model(x[:1], samples[:1], mode='predict')
    boxes = result.pred_instances.bboxes
    assert 0 < len(boxes) <= 10
    assert torch.isfinite(boxes).all()


def pose_model(spec, **backbone):
    ups = round(math.log2(spec.pose_stride / 4))
    return dict(
        type='mmpose.TopdownPoseEstimator',
        backbone=dict(type=spec.type, out_indices=spec.pose_out_indices, **backbone),
        head=dict(
            type='mmpose.HeatmapHead', in_channels=spec.pose_in_channels, out_channels=4,
            deconv_out_channels=(16,) * ups, deconv_kernel_sizes=(4,) * ups,
            loss=dict(type='mmpose.KeypointMSELoss', use_target_weight=True),
            decoder=dict(
                type='mmpose.MSRAHeatmap', input_size=(48, 64), heatmap_size=(12, 16), sigma=2
            ),
        ),
        test_cfg=dict(flip_test=False),
    )  # fmt: skip


def pose_sample(shape):
    from mmengine.structures import InstanceData, PixelData
    from mmpose.structures import PoseDataSample

    sample = PoseDataSample()
    sample.set_metainfo(
        dict(
            input_size=(48, 64), input_center=np.array([24.0, 32.0]),
            input_scale=np.array([48.0, 64.0]), flip_indices=[0, 1, 2, 3],
        )
    )  # fmt: skip
    sample.gt_instances = InstanceData(bboxes=np.array([[0, 0, 48, 64]]), bbox_scores=np.ones(1))
    sample.gt_instance_labels = InstanceData(keypoint_weights=torch.ones(1, 4))
    sample.gt_fields = PixelData(heatmaps=torch.rand(4, *shape))
    return sample


@pytest.mark.parametrize('name', TWENTY)
def test_pose(name):
    from mmpose.registry import MODELS

    spec = get_spec(name)
    h, w, more = (64, 48, dict(img_size=(64, 48))) if spec.fixed_size else (90, 70, {})
    model = MODELS.build(pose_model(spec, **more))
    model.backbone.init_weights()
    x = torch.randn(2, 3, h, w)
    model.eval()
    with torch.no_grad():
        shape = model(x, None, mode='tensor').shape[-2:]
    samples = [pose_sample(shape) for _ in range(2)]
    model.train()
    check_losses(model(x, samples, mode='loss'))
    assert without_gradient(model) == []
    model.eval()
    with torch.no_grad():
        result = model(x, samples, mode='predict')
    assert result[0].pred_instances.keypoints.shape == (1, 4, 2)
    assert np.isfinite(result[0].pred_instances.keypoints).all()


def test_mixer_says_what_pictures_it_takes_in_a_detector():
    from mmdet.registry import MODELS

    from bocb_mm.errors import UserError

    model = MODELS.build(retinanet(get_spec('MLP-S')))
    with pytest.raises(
        UserError, match='MLP-S got images of 250x333 pixels but takes 224x224 only'
    ):
        model(torch.randn(1, 3, 250, 333), mode='tensor')


@pytest.mark.parametrize('name', ['MobV2', 'Eff-B0', 'IF-12'])
def test_distributed_training_needs_no_search_for_unused_weights(name, tmp_path):
    from torch.nn.parallel import DistributedDataParallel

    spec = get_spec(name)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    try:
        from mmdet.registry import MODELS

        network = MODELS.build(dict(type=spec.type, out_indices=spec.fpn_out_indices))
        model = DistributedDataParallel(network, find_unused_parameters=False)
        for _ in range(2):  # the second forward raises if a weight of the first had no gradient
            sum(m.mean() for m in model(torch.randn(2, 3, 65, 66))).backward()
    finally:
        torch.distributed.destroy_process_group()
