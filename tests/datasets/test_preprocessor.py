"""The augmenting preprocessor: same distribution as the workers' pipeline, its seed, its place."""

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

KIND = 'bocb_mm.AugmentingDataPreprocessor'
COLOURS = dict(mean=[129.304, 124.070, 112.434], std=[68.170, 65.392, 70.418])
CROP = dict(type='RandomResizedCrop', scale=40, backend='pillow', interpolation='bicubic')
FLIP = dict(type='RandomFlip', prob=0.5, direction='horizontal')
ERASE = dict(
    type='RandomErasing', erase_prob=0.25, mode='rand', min_area_ratio=0.02,
    max_area_ratio=1 / 3, fill_color=COLOURS['mean'], fill_std=COLOURS['std'],
)  # fmt: skip


def build(**kwargs):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(**kwargs))


def pipeline(*transforms):
    from mmengine.dataset import Compose
    from mmpretrain.registry import TRANSFORMS

    return Compose([TRANSFORMS.build(t) for t in (*transforms, dict(type='PackInputs'))])


def through(pre, transforms, image, n, label=3):
    """``n`` passes of one image through the workers' transforms and the preprocessor."""
    from mmengine.dataset import default_collate

    worker = pipeline(*transforms)
    data = default_collate([worker({'img': image.copy(), 'gt_label': label}) for _ in range(n)])
    return pre(data, training=True)


@pytest.mark.filterwarnings('ignore')
def test_workers_and_device_give_the_same_distribution():
    from bocb_mm.config.augment import split

    n, image = 3000, np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.random.seed(0)
    whole = [CROP, FLIP, ERASE]
    theirs = through(build(type='ClsDataPreprocessor', **COLOURS), whole, image, n)['inputs']
    stay, moved = split([*whole, dict(type='PackInputs')], 'CIFAR100')
    assert [t['type'] for t in stay] == ['RandomFlip', 'PackInputs']
    ours = through(build(type=KIND, batch_transforms=moved, **COLOURS), stay[:-1], image, n)[
        'inputs'
    ]
    assert ours.shape == theirs.shape == (n, 3, 40, 40) and ours.dtype == theirs.dtype
    for moment in (1, 2):  # of every pixel; 9,600 comparisons of standard normal differences
        a, b = ours.double() ** moment, theirs.double() ** moment
        error = ((a.var(0) + b.var(0)) / n).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() / error).max() < 5.5
    # Neighbours depend on each other alike: products of pixels 1, 5 and 20 apart.
    for step in (1, 5, 20):
        a, b = ((x[..., step:] * x[..., :-step]).mean((1, 2, 3)) for x in (ours, theirs))
        error = ((a.var() + b.var()) / n).sqrt()
        assert abs(a.mean() - b.mean()) / error < 4


def test_mixup_and_cutmix_follow_on_the_device():
    moved = [dict(CROP, type='bocb_mm.BatchRandomResizedCrop')]
    augments = dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)])
    pre = build(
        type=KIND, batch_transforms=moved, num_classes=10, batch_augments=augments, **COLOURS
    )
    np.random.seed(0)
    torch.manual_seed(0)
    worker = pipeline(FLIP)
    low, high = (
        (v - torch.tensor(COLOURS['mean'])) / torch.tensor(COLOURS['std']) for v in (0, 255)
    )
    mixed = 0
    for _ in range(10):
        two = [
            worker({'img': np.full((32, 32, 3), v, np.uint8), 'gt_label': v // 200})
            for v in (0, 255)
        ]
        out = pre({key: [d[key] for d in two] for key in two[0]}, training=True)
        scores = torch.stack([s.gt_score for s in out['data_samples']])
        assert torch.allclose(scores.sum(1), torch.ones(2)) and out['inputs'].shape == (
            2,
            3,
            40,
            40,
        )
        # A blank image stays blank when cropped: its mean tells its share in the mixture.
        share = ((out['inputs'].mean((2, 3)) - low) / (high - low)).mean(1)
        assert torch.allclose(share, scores[:, 1], atol=1e-5)
        mixed += bool(0.01 < share[0] < 0.99)
    assert mixed  # the others drew themselves as partners


def test_evaluation_is_left_alone():
    moved = [dict(ERASE, type='bocb_mm.BatchRandomErasing', erase_prob=1.0)]
    data = {'inputs': torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)}
    ours = build(type=KIND, batch_transforms=moved, **COLOURS)(dict(data))['inputs']
    assert torch.equal(ours, build(type='ClsDataPreprocessor', **COLOURS)(dict(data))['inputs'])


def test_the_runs_seed_decides_and_processes_differ(monkeypatch):
    from bocb_mm.datasets import preprocessor

    moved = [dict(CROP, type='bocb_mm.BatchRandomResizedCrop'),
             dict(ERASE, type='bocb_mm.BatchRandomErasing')]  # fmt: skip
    pre = build(type=KIND, batch_transforms=moved, **COLOURS)
    data = {'inputs': torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)}

    def once(rank=0):
        monkeypatch.setattr(preprocessor, 'get_rank', lambda: rank)
        np.random.seed(5)
        return [pre(dict(data), training=True)['inputs'] for _ in range(2)]

    first, second = once()
    again = once()
    assert torch.equal(first, again[0]) and torch.equal(second, again[1])
    assert not torch.equal(first, second) and not torch.equal(first, once(rank=1)[0])
