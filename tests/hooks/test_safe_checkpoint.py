"""A checkpoint is whole or not there, and what is there can be read."""

import logging
import resource
from pathlib import Path

import pytest
from mmengine.runner import Runner
from mmengine.runner._flexible_runner import FlexibleRunner

from bocb_mm.checkpoints.read import CheckpointError, load_checkpoint
from bocb_mm.resume.find import find_resumable
from tests import tiny_training as tiny


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
    tiny.runner(tmp_path, default_hooks=tiny.saving(max_keep_ckpts=2)).train()
    assert seen == [(f'iter_{n}.pth', f'iter_{n + 6}.pth') for n in (3, 6, 9, 12)]
    assert {p.name for p in tmp_path.glob('*.pth')} == {'iter_15.pth', 'iter_18.pth'}


def test_max_keep_is_kept_across_a_resume(tmp_path):
    tiny.runner(tmp_path, default_hooks=tiny.saving(max_keep_ckpts=2)).train()
    longer = {'by_epoch': True, 'max_epochs': 4, 'val_interval': 1}
    changed = {'default_hooks': tiny.saving(max_keep_ckpts=2), 'train_cfg': longer}
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
        default_hooks=tiny.saving(
            by_epoch=True, interval=1, save_best='tiny/accuracy', rule='greater'
        ),
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
        default_hooks=tiny.saving(max_keep_ckpts=1),
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
    run = tiny.runner(tmp_path, default_hooks=tiny.saving(max_keep_ckpts=1), custom_hooks=[full])
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
    tiny.runner(tmp_path, default_hooks=tiny.saving(max_keep_ckpts=1, interval=6)).train()
    assert [p.name for p in tmp_path.glob('*.pth')] == ['iter_18.pth']


def test_an_optimizer_whose_state_cannot_be_read_back_ends_the_run_at_once(tmp_path):
    optimizer = {'type': 'bocb_mm.pytorch_optimizer.conda', 'lr': 0.01, 'update_proj_gap': 5}
    run = tiny.runner(tmp_path, default_hooks=tiny.saving(), optim_wrapper={'optimizer': optimizer})
    with pytest.raises(CheckpointError, match=r'optimizer\.state\.\d.*GaLoreProjector.*another'):
        run.train()
    assert run.iter == 0 and not list(tmp_path.glob('*.pth'))


def test_what_a_hook_puts_into_a_checkpoint_too_late_to_be_made_plain_is_refused(tmp_path):
    class Late(tiny.Hook):
        priority = 'LOWEST'

        def before_save_checkpoint(self, runner, checkpoint):
            checkpoint['late'] = tiny.BaseMetric

    run = tiny.runner(tmp_path, default_hooks=tiny.saving(), custom_hooks=[Late()])
    with pytest.raises(CheckpointError, match='not saved, it could not be read back.*BaseMetric'):
        run.train()
    assert not list(tmp_path.glob('*.pth')) and not list(tmp_path.glob('.*.tmp'))


TEMPLATES = ['model_{}.pt', 'model_{}', 'n{:03d}.pth.tar', 'deep/at_{}.pth', 'latest.ckpt']


@pytest.mark.parametrize('keep', [1, -1])
@pytest.mark.parametrize('template', TEMPLATES)
def test_checkpoints_of_any_name_are_kept_found_and_resumed(template, keep, tmp_path):
    settings = {'default_hooks': tiny.saving(filename_tmpl=template, max_keep_ckpts=keep)}
    whole = tiny.runner(tmp_path / 'whole', **settings)
    whole.train()
    last = tmp_path / 'whole' / template.format(18)
    assert find_resumable(tmp_path / 'whole') == last
    (tmp_path / 'whole' / 'last_checkpoint').unlink()
    if 'deep' not in template:
        assert find_resumable(tmp_path / 'whole') == last
    kept = [p for p in last.parent.iterdir() if p.is_file() and load_checkpointable(p)]
    assert len(kept) == (1 if keep == 1 or '{' not in template else 6)
    longer = {'by_epoch': True, 'max_epochs': 4, 'val_interval': 1}
    tiny.resumed(tmp_path / 'whole', last, **settings, train_cfg=longer)
    assert find_resumable(tmp_path / 'whole') == last.parent / Path(template).name.format(24)


def load_checkpointable(path):
    try:
        return bool(load_checkpoint(path))
    except CheckpointError:
        return False


def test_checkpoints_go_to_another_directory_and_are_found_there(tmp_path):
    settings = {
        'default_hooks': tiny.saving(out_dir=str(tmp_path / 'big' / 'disk'), max_keep_ckpts=1)
    }
    tiny.runner(tmp_path / 'run', **settings).train()
    last = tmp_path / 'big' / 'disk' / 'run' / 'iter_18.pth'
    assert [p.name for p in last.parent.iterdir()] == ['iter_18.pth']
    assert find_resumable(tmp_path / 'run') == last
    (tmp_path / 'run' / 'last_checkpoint').unlink()
    assert find_resumable(tmp_path / 'run', out_dir=last.parent) == last


def test_an_address_is_no_directory_for_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match='s3://bucket: SafeCheckpointHook saves to local'):
        tiny.runner(tmp_path, default_hooks=tiny.saving(out_dir='s3://bucket'))


@pytest.mark.parametrize('kind', [Runner, FlexibleRunner])
def test_a_test_or_validation_neither_locks_nor_changes_the_directory(kind, tmp_path):
    """Other projects' test scripts run with the hooks of the config."""
    named = {'task': 'classification', 'dataset': 'a', 'backbone': 'b', 'metric': 'tiny/accuracy'}
    custom = [{'type': 'bocb_mm.RunRecordHook', **named}]
    custom += [{'type': f'bocb_mm.{n}Hook'} for n in ('Divergence', 'Signal')]
    settings = {'kind': kind, 'default_hooks': tiny.saving(), 'custom_hooks': custom}
    tiny.runner(tmp_path, **settings).train()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    more = {f'test_{k}': v for k, v in tiny.config('').items() if k.startswith('val_')}
    more = {k.replace('test_val_', 'test_'): v for k, v in more.items()}
    broken = tiny.loader(dataset={'type': 'NoSuchData'})  # a test needs no training data
    run = tiny.runner(tmp_path, **settings, **more, train_dataloader=broken)
    assert 'tiny/accuracy' in run.test()
    run.val()
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert {k: v for k, v in after.items() if k in before} == before
