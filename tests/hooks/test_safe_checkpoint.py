"""A checkpoint is whole or not there, and a resumed run is the run that was never interrupted."""

import logging
import resource
from pathlib import Path

import pytest
import torch

from bocb_mm.checkpoints.read import CheckpointError, load_checkpoint
from bocb_mm.errors import UserError
from bocb_mm.optimizers import list_optimizers
from bocb_mm.resume.find import find_resumable
from tests import tiny_training as tiny


def hooks(**settings):
    """Default hooks with a SafeCheckpointHook; by iteration unless told otherwise."""
    settings = {'interval': 3, 'by_epoch': False, **settings}
    return {
        'checkpoint': {'type': 'bocb_mm.SafeCheckpointHook', **settings},
        'logger': {'type': 'LoggerHook', 'interval': 1000},
    }


def uninterrupted_and_resumed(tmp_path, iteration, make):
    """Final weights of a whole run and of one resumed from the whole run's checkpoint."""
    whole = tiny.runner(tmp_path / 'whole', **make())
    whole.train()
    start = tmp_path / 'whole' / f'iter_{iteration}.pth'
    again = tiny.runner(tmp_path / 'again', resume=True, load_from=str(start), **make())
    again.train()
    assert again.iter == whole.iter
    return tiny.weights(whole), tiny.weights(again)


@pytest.mark.parametrize('name', list_optimizers())
def test_every_optimizer_resumes_bit_equal_mid_epoch_with_ema_bf16_and_accumulation(name, tmp_path):
    kind = 'SophiaAmpOptimWrapper' if name == 'Sophia' else 'AmpOptimWrapper'

    def make():
        return {
            'default_hooks': hooks(),
            'custom_hooks': [{'type': 'EMAHook', 'momentum': 0.1}],
            'optim_wrapper': {
                'type': f'bocb_mm.{kind}',
                'dtype': 'bfloat16',
                'accumulative_counts': 2,
                'optimizer': {'type': f'bocb_mm.{name}', 'lr': 1e-3},
            },
            'train_cfg': {'by_epoch': True, 'max_epochs': 2, 'val_interval': 1},
        }

    # 9 of 12 iterations: in the second epoch of six, and one gradient waits for its second half.
    whole, again = uninterrupted_and_resumed(tmp_path, 9, make)
    assert all(torch.isfinite(v).all() for v in whole.values())
    assert tiny.same(whole, again)
    start = tiny.runner(tmp_path / 'start').model.state_dict()
    assert not tiny.same(whole, start), 'nothing was trained'


BY_ITER = {'by_epoch': False, 'max_iters': 14, 'val_interval': 6}
LOADERS = {
    'no workers': (0, 'DefaultSampler', False, None),
    'workers': (2, 'DefaultSampler', False, None),
    'persistent workers': (2, 'DefaultSampler', True, None),
    'by iteration': (0, 'InfiniteSampler', False, BY_ITER),
    'by iteration, workers': (2, 'InfiniteSampler', True, BY_ITER),
}


@pytest.mark.parametrize('case', LOADERS)
def test_every_kind_of_data_loading_resumes_bit_equal(case, tmp_path):
    workers, sampler, persistent, train_cfg = LOADERS[case]

    def make():
        made = {
            'default_hooks': hooks(interval=1),
            'train_dataloader': tiny.loader(workers, sampler, persistent_workers=persistent),
        }
        return {**made, 'train_cfg': dict(train_cfg)} if train_cfg else made

    whole, again = uninterrupted_and_resumed(tmp_path, 9, make)
    assert tiny.same(whole, again)


@pytest.mark.parametrize('iteration', [1, 6, 12])
def test_first_iteration_and_ends_of_epochs_resume_bit_equal(iteration, tmp_path):
    def make():
        return {'default_hooks': hooks(interval=1)}

    assert tiny.same(*uninterrupted_and_resumed(tmp_path, iteration, make))


def test_epoch_checkpoints_resume_bit_equal(tmp_path):
    whole = tiny.runner(tmp_path / 'a', default_hooks=hooks(by_epoch=True, interval=1))
    whole.train()
    start = str(tmp_path / 'a' / 'epoch_1.pth')
    again = tiny.runner(
        tmp_path / 'b',
        default_hooks=hooks(by_epoch=True, interval=1),
        resume=True,
        load_from=start,
    )
    again.train()
    assert tiny.same(tiny.weights(whole), tiny.weights(again))


def test_validating_does_not_change_the_training(tmp_path):
    with_val = tiny.runner(tmp_path / 'a', default_hooks=hooks())
    with_val.train()
    none = {'val_dataloader': None, 'val_cfg': None, 'val_evaluator': None}
    without = tiny.runner(tmp_path / 'b', default_hooks=hooks(), **none)
    without.train()
    assert tiny.same(tiny.weights(with_val), tiny.weights(without))


def test_old_files_go_only_after_the_new_one_is_complete_and_pointed_to(tmp_path, monkeypatch):
    seen = []
    unlink = Path.unlink

    def watched(path, missing_ok=False):
        if path.suffix == '.pth':
            pointer = Path((tmp_path / 'last_checkpoint').read_text())
            load_checkpoint(pointer)
            seen.append((path.name, pointer.name))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, 'unlink', watched)
    tiny.runner(tmp_path, default_hooks=hooks(max_keep_ckpts=2)).train()
    assert seen == [(f'iter_{n}.pth', f'iter_{n + 6}.pth') for n in (3, 6, 9, 12)]
    assert {p.name for p in tmp_path.glob('*.pth')} == {'iter_15.pth', 'iter_18.pth'}


def test_max_keep_is_kept_across_a_resume(tmp_path):
    tiny.runner(tmp_path, default_hooks=hooks(max_keep_ckpts=2)).train()
    longer = {'by_epoch': True, 'max_epochs': 4, 'val_interval': 1}
    changed = {'default_hooks': hooks(max_keep_ckpts=2), 'train_cfg': longer}
    tiny.runner(tmp_path, resume=True, load_from=str(tmp_path / 'iter_18.pth'), **changed).train()
    assert {p.name for p in tmp_path.glob('*.pth')} == {'iter_21.pth', 'iter_24.pth'}


class Scores(tiny.BaseMetric):
    """Gives the results it was made with, one a validation."""

    default_prefix = 'tiny'

    def __init__(self, scores):
        super().__init__()
        self.scores = iter(scores)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {'accuracy': next(self.scores)}


def test_the_best_is_kept_and_its_file_replaced_only_by_a_complete_one(tmp_path):
    run = tiny.runner(
        tmp_path,
        default_hooks=hooks(by_epoch=True, interval=1, save_best='tiny/accuracy', rule='greater'),
        val_evaluator=tiny.Evaluator(Scores([0.2, 0.7, 0.1])),
    )
    run.train()
    assert [p.name for p in tmp_path.glob('best_*')] == ['best_tiny_accuracy_epoch_2.pth']
    info = load_checkpoint(tmp_path / 'epoch_3.pth')['message_hub']['runtime_info']
    assert info['best_score'] == 0.7
    assert info['best_ckpt'].endswith('best_tiny_accuracy_epoch_2.pth')
    assert 'optimizer' not in load_checkpoint(tmp_path / 'best_tiny_accuracy_epoch_2.pth')


class Full:
    """A disk with no room for a file of more than ``limit`` bytes."""

    def __init__(self, limit):
        self.limit = limit

    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.before[1]))

    def __exit__(self, *error):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


class FullDuring(tiny.Hook):
    """Fills the disk up from one iteration on, until another."""

    priority = 'VERY_HIGH'

    def __init__(self, first, last):
        self.first, self.last, self.full = first, last, Full(6000)

    def before_train_iter(self, runner, **_):
        if runner.iter + 1 == self.first:
            self.full.__enter__()
        if runner.iter + 1 == self.last:
            self.full.__exit__()


def test_a_full_disk_leaves_the_last_checkpoint_says_so_and_training_goes_on(tmp_path, caplog):
    run = tiny.runner(
        tmp_path,
        default_hooks=hooks(max_keep_ckpts=1),
        custom_hooks=[FullDuring(first=4, last=10)],
    )
    run.logger.addHandler(caplog.handler)
    with caplog.at_level(logging.ERROR):
        run.train()
    errors = [r.getMessage() for r in caplog.records if 'not saved' in r.getMessage()]
    assert len(errors) == 2  # iterations 6 and 9
    assert all('iter_3.pth' in e.rpartition('the last one is')[2] for e in errors)
    assert [p.name for p in tmp_path.glob('*.pth')] == ['iter_18.pth']
    assert not list(tmp_path.glob('.*tmp'))


def test_a_full_disk_at_the_end_fails_the_run_and_keeps_what_was_there(tmp_path):
    full = FullDuring(first=16, last=10**9)
    run = tiny.runner(tmp_path, default_hooks=hooks(max_keep_ckpts=1), custom_hooks=[full])
    try:
        with pytest.raises(CheckpointError, match=r'iter_18.*not saved.*iter_15\.pth'):
            run.train()
    finally:
        full.full.__exit__()
    assert find_resumable(tmp_path) == tmp_path / 'iter_15.pth'
    assert (tmp_path / 'last_checkpoint').read_text().endswith('iter_15.pth')
    load_checkpoint(tmp_path / 'iter_15.pth')
    assert [p.name for p in tmp_path.glob('*.pth*')] == ['iter_15.pth']


def test_a_write_that_the_disk_did_not_keep_is_noticed(tmp_path, monkeypatch):
    import os

    fsync = os.fsync

    def spoil(fd):  # what comes back from the disk is not what went there
        fsync(fd)
        name = os.readlink(f'/proc/self/fd/{fd}')
        if name.endswith('iter_6.pth.tmp'):
            data = bytearray(Path(name).read_bytes())
            data[len(data) // 2] ^= 1
            Path(name).write_bytes(data)

    monkeypatch.setattr(os, 'fsync', spoil)
    tiny.runner(tmp_path, default_hooks=hooks(max_keep_ckpts=1, interval=6)).train()
    assert [p.name for p in tmp_path.glob('*.pth')] == ['iter_18.pth']


def test_a_validation_that_was_cut_off_is_done_on_resuming(tmp_path):
    class Cut(tiny.Hook):
        def before_val_iter(self, runner, **_):
            raise KeyboardInterrupt

    settings = {'default_hooks': hooks(by_epoch=True, interval=1)}
    with pytest.raises(KeyboardInterrupt):
        tiny.runner(tmp_path, custom_hooks=[Cut()], **settings).train()
    seen = []

    class Note(tiny.Hook):
        def after_val_epoch(self, runner, metrics=None):
            seen.append(runner.epoch)

    start = str(find_resumable(tmp_path))
    tiny.runner(tmp_path, resume=True, load_from=start, custom_hooks=[Note()], **settings).train()
    assert seen == [1, 2, 3]


def cosine(epochs):
    return [{'type': 'CosineAnnealingLR', 'T_max': epochs, 'end': epochs, 'by_epoch': True}]


class Rates(tiny.Hook):
    """Notes the learning rate of every iteration."""

    def __init__(self):
        self.rates = {}

    def before_train_iter(self, runner, **_):
        self.rates[runner.iter] = runner.optim_wrapper.optimizer.param_groups[0]['lr']


def rates(directory, epochs, lr=0.05, start=None, schedule=None):
    """Learning rate by iteration of a run, from the start or resumed."""
    note = Rates()
    tiny.runner(
        directory,
        default_hooks=hooks(by_epoch=True, interval=1),
        custom_hooks=[note],
        train_cfg={'by_epoch': True, 'max_epochs': epochs, 'val_interval': 100},
        param_scheduler=schedule or cosine(epochs),
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': lr, 'momentum': 0.9}},
        **({'resume': True, 'load_from': str(start)} if start else {}),
    ).train()
    return note.rates


WARM = {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'begin': 0, 'end': 8}
CHANGES = {
    'longer': {'epochs': 4},
    'another rate': {'epochs': 2, 'lr': 0.2},
    'another schedule': {'epochs': 3, 'schedule': [WARM, *cosine(3)]},
    'iteration-based': {
        'epochs': 4,
        'schedule': [{'type': 'PolyLR', 'eta_min': 0.0, 'by_epoch': True, 'end': 4,
                      'convert_to_iter_based': True}],
    },
}  # fmt: skip


@pytest.mark.parametrize('stock', [False, True], ids=['ours', 'of stock mmengine'])
@pytest.mark.parametrize('change', CHANGES)
def test_a_changed_schedule_is_followed_as_if_it_had_been_there_from_the_start(
    change, stock, tmp_path
):
    rates(tmp_path / 'old', epochs=2)
    start = tmp_path / 'old' / 'epoch_1.pth'
    if stock:
        content = load_checkpoint(start)
        content.pop('bocb_mm')
        torch.save(content, start)
    expected = rates(tmp_path / 'new', **CHANGES[change])
    found = rates(tmp_path / 'resumed', start=start, **CHANGES[change])
    assert found == pytest.approx({k: v for k, v in expected.items() if k >= 6}, rel=1e-9)


REFUSED = {
    'optimizer': {'optim_wrapper': {'optimizer': {'type': 'AdamW', 'lr': 0.05}}},
    'batch_size': {'train_dataloader': tiny.loader(batch_size=8)},
    'batches': {'train_dataloader': tiny.loader(dataset=tiny.TinyData(40))},
    'parameters': {
        'optim_wrapper': {
            'optimizer': {'type': 'SGD', 'lr': 0.05, 'momentum': 0.9, 'weight_decay': 0.0},
            'paramwise_cfg': {'norm_decay_mult': 0.0},
        }
    },
}


@pytest.mark.parametrize('what', REFUSED)
def test_what_cannot_be_changed_in_a_run_is_refused_with_the_reason(what, tmp_path):
    tiny.runner(tmp_path, default_hooks=hooks()).train()
    changed = {'default_hooks': hooks(), **REFUSED[what]}
    start = str(tmp_path / 'iter_9.pth')
    with pytest.raises(UserError, match=f'{what} was .* and is now .*; keep it, or start'):
        tiny.runner(tmp_path, resume=True, load_from=start, **changed).train()


def test_a_changed_weight_decay_takes_effect(tmp_path):
    tiny.runner(tmp_path, default_hooks=hooks()).train()
    optimizer = {'type': 'SGD', 'lr': 0.05, 'momentum': 0.9, 'weight_decay': 0.3}
    run = tiny.runner(
        tmp_path,
        default_hooks=hooks(),
        optim_wrapper={'optimizer': optimizer},
        resume=True,
        load_from=str(tmp_path / 'iter_9.pth'),
    )
    run.train()
    assert run.optim_wrapper.optimizer.param_groups[0]['weight_decay'] == 0.3


def test_a_checkpoint_without_optimizer_is_not_resumed(tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save({'state_dict': {}, 'meta': {}}, path)
    with pytest.raises(UserError, match='cannot be resumed, it has no optimizer, message_hub'):
        tiny.runner(tmp_path, default_hooks=hooks(), resume=True, load_from=str(path)).train()


def test_a_checkpoint_of_stock_mmengine_goes_on_where_it_was(tmp_path):
    stock = {'checkpoint': {'type': 'CheckpointHook', 'interval': 1}}
    tiny.runner(tmp_path, default_hooks=stock).train()
    start = str(tmp_path / 'epoch_1.pth')
    run = tiny.runner(tmp_path, default_hooks=hooks(), resume=True, load_from=start)
    run.train()
    assert run.iter == 18
