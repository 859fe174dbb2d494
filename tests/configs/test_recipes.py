"""Table A3: every ingredient of every recipe, read off the objects that a Runner builds from it."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bocb_mm.optimizers import get_spec as optimizer_spec
from bocb_mm.optimizers.spec import RECIPES as CATALOG_RECIPES
from tests.tiny_data import trust_tiny_cifar, write_cifar100, write_imagenet

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / 'configs/_base_/recipes'


def _table_a3() -> dict[str, dict[str, str]]:
    """Column head -> ingredient -> cell, as printed."""
    with (ROOT / 'bocb_mm/report/paper/tableA3_recipes.csv').open(encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    heads = [h for h in rows[0] if h != 'ingredient']
    return {h: {row['ingredient']: row[h] for row in rows} for h in heads}


A3 = _table_a3()
AT_32 = {'Train Resolution': '32', 'Test Resolution': '32'}
AT_224 = {'Train Resolution': '224', 'Test Resolution': '224'}

# File -> what it must be. The first eight are the columns of Table A3.
EXPECTED: dict[str, dict[str, str]] = {
    'pytorch': A3['PyTorch / IN-1K'],
    'pytorch_cifar_224': A3['PyTorch / CIFAR'],
    'deit': A3['DeiT / IN-1K'],
    'deit_cifar_224': A3['DeiT / CIFAR'],
    'convnext_cifar_32': A3['ConvNeXt / CIFAR'],
    'rsb-a2': A3['RSB A2 / IN-1K'],
    'rsb-a2_cifar_224': A3['RSB A2 / CIFAR'],
    'rsb-a3': A3['RSB A3 / IN-1K'],
    # Table A1 trains some networks by these two recipes at the other size.
    'pytorch_cifar_32': A3['PyTorch / CIFAR'] | AT_32,
    'convnext_cifar_224': A3['ConvNeXt / CIFAR'] | AT_224,
    # Not in Table A3. ImageNet's size, crop, epochs; batch and rate: mmpretrain convnext-tiny_32xb128.
    'convnext': A3['ConvNeXt / CIFAR']
    | AT_224
    | {
        'Test crop ratio': '0.875', 'Epochs': '300', 'Batch size': '4096', 'Learning rate': '0.004',
    },
    # arXiv 2110.00476, Table 2.
    'rsb-a1': A3['RSB A2 / IN-1K']
    | {
        'Epochs': '600', 'Weight decay': '0.01', 'Label smoothing ϵ': '0.1', 'Mixup α': '0.2',
    },
}  # fmt: skip
# Processes that the comment in the file counts on.
PROCESSES = {'pytorch': 8, 'deit': 8, 'convnext': 32, 'rsb-a1': 8, 'rsb-a2': 8, 'rsb-a3': 8}


class _BuiltAll(Exception):
    """Raised by the probe once everything is built."""


class Built:
    """A recipe with the catalog's smallest network on tiny data, built by the Runner itself."""

    def __init__(self, name: str, data_root: Path, work_dir: Path) -> None:
        from mmengine.config import Config
        from mmengine.hooks import Hook
        from mmengine.runner import Runner

        from bocb_mm.backbones import get_spec

        class Probe(Hook):
            priority = 'HIGHEST'

            def before_train(self, runner: Any) -> None:
                raise _BuiltAll

        self.name = name
        self.recipe = Config.fromfile(RECIPES / f'{name}.py')
        classes = self.recipe.data_preprocessor.num_classes
        cfg = self.recipe.copy()
        cfg.merge_from_dict(
            {
                'model': get_spec('R-18-XS').classifier(classes),
                'work_dir': str(work_dir),
                'log_level': 'ERROR',
                'train_dataloader.num_workers': 0,
                'val_dataloader.num_workers': 0,
                'test_dataloader.num_workers': 0,
                'train_dataloader.persistent_workers': False,
                'val_dataloader.persistent_workers': False,
                'test_dataloader.persistent_workers': False,
            }
        )
        self.classes = classes
        self.runner = Runner.from_cfg(cfg)
        self.runner.register_hook(Probe())
        with pytest.raises(_BuiltAll):
            self.runner.train()
        self.model = self.runner.model
        self.wrapper = self.runner.optim_wrapper
        self.optimizer = self.wrapper.optimizer
        self.dataset = self.runner.train_dataloader.dataset
        self.test_set = self.runner.val_dataloader.dataset
        self.transforms = {type(t).__name__: t for t in self.dataset.pipeline.transforms}
        self.test_transforms = {type(t).__name__: t for t in self.test_set.pipeline.transforms}
        self.hooks = {type(h).__name__: h for h in self.runner.hooks}
        self.schedulers = {type(s).__name__: s for s in self.runner.param_schedulers}

    def augment(self, name: str) -> str:
        """Alpha of a batch augmentation, ``'none'`` without it."""
        augments = getattr(self.model.data_preprocessor.batch_augments, 'augments', [])
        found = [f'{a.alpha}' for a in augments if type(a).__name__ == name]
        return found[0] if found else 'none'

    def setting(self, transform: str, *attributes: str) -> str:
        """Attributes of a training transform, ``'none'`` without it."""
        if transform not in self.transforms:
            return 'none'
        return '/'.join(f'{getattr(self.transforms[transform], a):g}' for a in attributes)

    def loss(self, smoothing: float) -> set[str]:
        """Which of cross-entropy and binary cross-entropy (means) the head's loss equals."""
        import torch
        import torch.nn.functional as F

        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(4, self.classes, generator=generator)
        first, second = torch.randint(self.classes, (2, 4), generator=generator)
        targets = 0.7 * F.one_hot(first, self.classes) + 0.3 * F.one_hot(second, self.classes)
        labels = targets
        if self.model.data_preprocessor.batch_augments is None:  # then labels are numbers
            labels = targets.argmax(1)
            targets = F.one_hot(labels, self.classes).float()
        found = self.model.head.loss_module(logits, labels)
        smooth = targets * (1 - smoothing) + smoothing / self.classes
        known = {
            'CE': F.cross_entropy(logits, smooth),
            'BCE': F.binary_cross_entropy_with_logits(logits, smooth),
        }
        return {k for k, v in known.items() if torch.allclose(found, v, rtol=1e-5)}


def _yes(found: object) -> str:
    return 'yes' if found else 'none'


def _number(told: str) -> float:
    return 0.0 if told == 'none' else float(told)


def _crop_ratio(b: Built, told: str) -> bool:
    crop = b.test_set[0]['inputs'].shape[-1]
    edge = b.test_transforms.get('ResizeEdge')
    return (edge.scale if edge else crop) == round(crop / float(told))


def _batch(b: Built, told: str) -> bool:
    whole = b.runner.train_dataloader.batch_size * PROCESSES.get(b.name, 1)
    return whole == b.runner.cfg.auto_scale_lr.base_batch_size == int(told)


def _momentum(b: Built, told: str) -> bool:
    found = b.optimizer.defaults.get('betas') or (b.optimizer.defaults['momentum'],)
    return tuple(found) == tuple(float(x) for x in told.split(','))


def _cosine(b: Built, told: str) -> bool:
    """The rate of every epoch lies on the half cosine between warm-up and end."""
    assert told == 'Cosine'
    scheduler, hook = b.schedulers['CosineAnnealingLR'], b.hooks['ParamSchedulerHook']
    group = b.optimizer.param_groups[0]
    base, begin, end = group['initial_lr'], scheduler.begin, b.runner.max_epochs
    lowest = base * (scheduler.eta_min_ratio or 0)
    assert len(b.runner.train_dataloader) == 1
    for epoch in range(end):
        if epoch >= begin:
            course = (1 + math.cos(math.pi * (epoch - begin) / (end - begin))) / 2
            if not math.isclose(group['lr'], lowest + (base - lowest) * course, rel_tol=1e-6):
                return False
        elif group['lr'] > base * (1 + 1e-9):
            return False
        hook.after_train_iter(b.runner, 0)
        hook.after_train_epoch(b.runner)
    return True


def _warm_up(b: Built, told: str) -> bool:
    epochs = int(_number(told))
    linear = b.schedulers.get('LinearLR')
    found = linear.end // len(b.runner.train_dataloader) if linear else 0  # it counts iterations
    return found == epochs == b.schedulers['CosineAnnealingLR'].begin


def _smoothing(b: Built, told: str) -> bool:
    return bool(b.loss(_number(told)))


def _depth(b: Built, told: str) -> bool:
    rates = [m.drop_prob for m in b.model.modules() if type(m).__name__ == 'DropPath']
    return math.isclose(max(rates, default=0.0), _number(told), rel_tol=1e-6)  # a float32 table


def _rand_augment(b: Built, told: str) -> bool:
    transform = b.transforms.get('RandAugment')
    if transform is not None and (transform.num_policies, transform.total_level) != (2, 10):
        return False
    return b.setting('RandAugment', 'magnitude_level', 'magnitude_std') == told


def _repeated(b: Built, told: str) -> bool:
    sampler = b.runner.train_dataloader.sampler
    if told == 'none':
        return type(sampler).__name__ == 'DefaultSampler' and sampler.shuffle
    return type(sampler).__name__ == 'RepeatAugSampler' and sampler.num_repeats == 3


def _crop(b: Built, told: str) -> bool:
    # A.1: "RandomResizeCrop (or RandomCrop for 32² resolutions)"
    size = b.dataset[0]['inputs'].shape[-1]
    return _yes(('RandomCrop' if size == 32 else 'RandomResizedCrop') in b.transforms) == told


def _clipping(b: Built, told: str) -> bool:
    kwargs = b.wrapper.clip_grad_kwargs or {}
    return kwargs.get('max_norm', 'none') == (told if told == 'none' else float(told))


def _loss_is(kind: str) -> Callable[[Built, str], bool]:
    def check(b: Built, told: str) -> bool:
        smoothing = getattr(b.model.head.loss_module, 'label_smooth_val', 0.0)
        return _yes(kind in b.loss(smoothing)) == told

    return check


CHECKS: dict[str, Callable[[Built, str], bool]] = {
    'Train Resolution': lambda b, told: b.dataset[0]['inputs'].shape == (3, int(told), int(told)),
    'Test Resolution': lambda b, told: b.test_set[0]['inputs'].shape == (3, int(told), int(told)),
    'Test crop ratio': _crop_ratio,
    'Epochs': lambda b, told: b.runner.max_epochs == int(told),
    'Batch size': _batch,
    'Optimizer': lambda b, told: type(b.optimizer) is optimizer_spec(told).cls,
    'Learning rate': lambda b, told: b.optimizer.defaults['lr'] == float(told),
    'Optimizer Momentum': _momentum,
    'Weight decay': lambda b, told: b.optimizer.defaults['weight_decay'] == float(told),
    'Warmup epochs': _warm_up,
    'LR decay': _cosine,
    'Label smoothing ϵ': _smoothing,
    'Dropout': lambda b, told: (
        told == 'none'
        and not any('Dropout' in type(m).__name__ and m.p > 0 for m in b.model.modules())
    ),
    'Stochastic Depth': _depth,
    'Repeated Augmentation': _repeated,
    'Gradient Clip.': _clipping,
    'Horizontal flip': lambda b, told: (
        _yes('RandomFlip' in b.transforms and b.transforms['RandomFlip'].prob == 0.5) == told
    ),
    'RandomResizedCrop': _crop,
    'Rand Augment': _rand_augment,
    'Auto Augment': lambda b, told: _yes('AutoAugment' in b.transforms) == told,
    'Mixup α': lambda b, told: b.augment('Mixup') == told,
    'Cutmix α': lambda b, told: b.augment('CutMix') == told,
    'Erasing probability': lambda b, told: b.setting('RandomErasing', 'erase_prob') == told,
    'ColorJitter': lambda b, told: _yes('ColorJitter' in b.transforms) == told,
    'EMA': lambda b, told: _yes('EMAHook' in b.hooks) == told,
    'CE loss': _loss_is('CE'),
    'BCE loss': _loss_is('BCE'),
}


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp('recipes')
    write_imagenet(root / 'imagenet', n_train=8, n_val=4)
    write_cifar100(root / 'cifar100', n_train=8, n_test=4)
    return root


@pytest.fixture(scope='module')
def built(data_root, tmp_path_factory):
    """Recipes by name, each built once."""
    done: dict[str, Built] = {}
    patch = pytest.MonkeyPatch()
    patch.setenv('BOCB_DATA_ROOT', str(data_root))
    trust_tiny_cifar(patch)

    def get(name: str) -> Built:
        if name not in done:
            done[name] = Built(name, data_root, tmp_path_factory.mktemp(name))
        return done[name]

    yield get
    patch.undo()


def test_every_recipe_file_is_checked():
    assert {p.stem for p in RECIPES.glob('*.py')} == set(EXPECTED)
    assert set(A3) == {f'{r} / {d}' for r, d in (
        ('PyTorch', 'IN-1K'), ('PyTorch', 'CIFAR'), ('DeiT', 'IN-1K'), ('DeiT', 'CIFAR'),
        ('ConvNeXt', 'CIFAR'), ('RSB A2', 'IN-1K'), ('RSB A2', 'CIFAR'), ('RSB A3', 'IN-1K'),
    )}  # fmt: skip


@pytest.mark.parametrize('name', sorted(EXPECTED))
def test_the_built_recipe_has_every_ingredient(name, built):
    b = built(name)
    assert list(EXPECTED[name]) and set(EXPECTED[name]) == set(CHECKS)
    wrong = {i: told for i, told in EXPECTED[name].items() if not CHECKS[i](b, told)}
    assert not wrong, f'{name}.py is not what the table says: {wrong}'


@pytest.mark.parametrize('name', sorted(EXPECTED))
def test_the_recipe_and_the_optimizer_catalog_agree(name, built):
    b = built(name)
    catalog_name = name.removesuffix('_224').removesuffix('_32').replace('_', '-')
    assert b.recipe.recipe == catalog_name
    assert CATALOG_RECIPES[catalog_name].batch == int(EXPECTED[name]['Batch size'])
    spec = optimizer_spec(type(b.optimizer).__name__)
    for key, value in spec.defaults_for('classification', catalog_name).items():
        assert b.optimizer.defaults[key] == value, key


@pytest.mark.parametrize('name', sorted(EXPECTED))
def test_fills_are_the_mean_in_the_order_of_a_loaded_pictures_channels(name, built):
    b = built(name)
    pre = b.recipe.data_preprocessor  # given for RGB; ImageNet's images are loaded as BGR
    mean, std = ((v[::-1] if pre.to_rgb else v) for v in (pre.mean, pre.std))
    if 'RandAugment' in b.transforms:
        rotate = next(
            p for p in b.recipe.train_dataloader.dataset.pipeline if p.type == 'RandAugment'
        )
        assert rotate.hparams.pad_val == [round(m) for m in mean]
    if 'RandomErasing' in b.transforms:
        assert list(b.transforms['RandomErasing'].fill_color) == list(mean)
        assert list(b.transforms['RandomErasing'].fill_std) == list(std)


def test_a_changed_ingredient_is_noticed(built):
    """The checks can fail: each cell that two columns disagree on is refused by the other recipe."""
    b = built('rsb-a3')
    told = EXPECTED['deit']
    noticed = {i for i in CHECKS if i != 'LR decay' and not CHECKS[i](b, told[i])}
    assert noticed == {
        i for i in CHECKS if told[i] != EXPECTED['rsb-a3'][i] and i != 'LR decay'
    }  # fmt: skip
