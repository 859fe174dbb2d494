"""Which checkpoint a run goes on from, and when it must not start anew."""

import pytest
import torch

from bocb_mm.errors import CheckpointError, UserError
from bocb_mm.resume.find import (
    check_resume,
    checkpoint_directory,
    find_resumable,
    origins_of,
)


def checkpoint(step, **changes):
    return {
        'meta': {'epoch': step, 'iter': 6 * step},
        'state_dict': {'w': torch.ones(50)},
        'message_hub': {},
        'optimizer': {'state': {}, 'param_groups': []},
        **changes,
    }


class Code:
    """What no reader that runs no code gives back."""


UNREADABLE = {
    'code': lambda path, step: torch.save(checkpoint(step, meta={'x': Code()}), path),
    'cut off': lambda path, step: (torch.save(checkpoint(step), path), cut(path)),
    'empty': lambda path, step: path.touch(),
    'no optimizer': lambda path, step: torch.save(
        {'meta': {'epoch': step, 'iter': step}, 'state_dict': {}}, path
    ),
}


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize('why', UNREADABLE)
@pytest.mark.parametrize('template', ['epoch_{}.pth', 'model_{}.pt'])
def test_where_none_can_be_read_all_are_named_and_none_is_touched(template, why, tmp_path):
    for step in (1, 2):
        UNREADABLE[why](tmp_path / template.format(step), step)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(CheckpointError) as caught:
        find_resumable(tmp_path)
    text = str(caught.value)
    assert all(name in text for name in before) and '\n' not in text
    assert 'a new run would overwrite them' in text and '--work-dir' in text
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'meta': {}}, 'epoch, iter'),
        ({'meta': {'epoch': 1, 'iter': 'x'}}, 'meta.iter'),
        ({'param_schedulers': 7}, 'param_schedulers'),
        ({'bocb_mm': 7}, 'bocb_mm'),
        ({'bocb_mm': {'plan': 7}}, 'bocb_mm.plan'),
        ({'bocb_mm': {'processes': {}, 'position': []}}, 'bocb_mm.processes, bocb_mm.position'),
    ],
)
def test_a_part_that_makes_no_sense_is_named(changes, named, tmp_path):
    torch.save(checkpoint(1, **changes), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=f'cannot be resumed, its {named} makes no sense'):
        check_resume(tmp_path / 'a.pth', {})


def test_a_checkpoint_beyond_the_end_is_refused(tmp_path):
    """The run would be completed without an iteration, and without a result."""
    torch.save(checkpoint(9), tmp_path / 'a.pth')
    for length in ('max_epochs', 'max_iters'):
        with pytest.raises(UserError, match=rf'(9|54), and train_cfg.{length} is 8'):
            check_resume(tmp_path / 'a.pth', {'train_cfg': {length: 8}})
    # At its end a validation may still be due.
    assert check_resume(tmp_path / 'a.pth', {'train_cfg': {'max_epochs': 9}})['epoch'] == 9


@pytest.mark.parametrize('why', UNREADABLE)
def test_one_that_can_be_read_is_enough(why, tmp_path, caplog):
    torch.save(checkpoint(1), tmp_path / 'epoch_1.pth')
    UNREADABLE[why](tmp_path / 'epoch_9.pth', 9)
    assert find_resumable(tmp_path) == tmp_path / 'epoch_1.pth'
    assert 'epoch_9.pth' in caplog.text


def test_what_is_trusted_can_be_read(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save(checkpoint(1, extra=Code()), path)
    with pytest.raises(CheckpointError, match='--trust-checkpoint'):
        find_resumable(tmp_path)
    assert find_resumable(tmp_path, trust=True) == path


def test_a_best_checkpoint_alone_is_not_overwritten(tmp_path):
    torch.save(checkpoint(1), tmp_path / 'best_accuracy_epoch_1.pth')
    with pytest.raises(CheckpointError, match='best_accuracy_epoch_1.pth'):
        find_resumable(tmp_path)
    torch.save(checkpoint(1), tmp_path / 'epoch_1.pth')
    assert find_resumable(tmp_path) == tmp_path / 'epoch_1.pth'


def test_files_that_are_no_checkpoints_of_a_training_do_not_hinder_a_new_one(tmp_path):
    torch.save({'w': torch.ones(3)}, tmp_path / 'resnet50.pth')
    (tmp_path / 'log.json').write_text('{}')
    (tmp_path / '.epoch_1.pth.tmp').write_bytes(b'PK\3\4')
    with (tmp_path / 'archive.zip').open('wb') as file:
        import zipfile

        with zipfile.ZipFile(file, 'w') as archive:
            archive.writestr('a.txt', 'a')
    assert find_resumable(tmp_path) is None


@pytest.mark.parametrize(
    ('hook', 'expected'),
    [
        ({'type': 'CheckpointHook', 'out_dir': '/disk'}, '/disk/run'),
        ({'type': 'bocb_mm.SafeCheckpointHook', 'out_dir': 'far'}, 'far/run'),
        ({'type': 'bocb_mm.SafeCheckpointHook'}, None),
    ],
)
def test_a_config_says_where_its_checkpoints_go(hook, expected):
    found = checkpoint_directory({'default_hooks': {'checkpoint': hook, 'x': None}}, 'a/run')
    assert (found and str(found)) == expected


def test_a_namesake_of_another_library_is_another_optimizer():
    from timm.optim import Lamb

    from bocb_mm.optimizers import build_optimizer

    p = [torch.nn.Parameter(torch.ones(2))]
    assert origins_of(Lamb) == ['timm.lamb']
    assert origins_of(type(build_optimizer('LAMB', p))) == ['bocb_mm.lamb']
    assert 'torch.adamw' in origins_of(type(build_optimizer('AdamW', p)))
