"""2,400 damaged files over every reader: one clear line or the right content, and no hang."""

import random
import time

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bocb_mm.checkpoints.read import CheckpointError, load_checkpoint
from bocb_mm.errors import UserError
from bocb_mm.report.layers import read_last
from bocb_mm.resume.find import find_resumable
from bocb_mm.runs.record import RunRecord

INPUTS = 600  # of each reader
SLOWEST = 10.0  # seconds of this process: far above one reading, far below a hang


def mutated(data: bytes, chance: random.Random) -> bytes:
    """``data`` with one to four accidents of the kinds that disks, networks and editors cause."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(out) or 1)
        length = chance.choice([1, 2, 8, 64, 512])
        kind = chance.randrange(8)
        if kind == 0 and out:
            out[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            out[place : place + length] = chance.randbytes(length)
        elif kind == 2:
            del out[place:]
        elif kind == 3:
            del out[place : place + length]
        elif kind == 4:
            out[place:place] = chance.randbytes(length)
        elif kind == 5:
            out[place : place + length] = b'\0' * length
        elif kind == 6:
            out[place:place] = out[place : place + length] * 3
        else:
            numbers = [b'1e999', b'-1', b'NaN', b'null', b'""', b'9' * 40, b'[[[[', b'\xff\xfe']
            out[place : place + length] = chance.choice(numbers)
    return bytes(out)


def fuzz(data, path, read, seed):
    """Read mutations of ``data``; yields what was read of those that were accepted."""
    chance, accepted = random.Random(seed), []
    for number in range(INPUTS):
        spoilt = mutated(data, chance)
        path.write_bytes(spoilt)
        began = time.process_time()
        try:
            accepted.append(read(path))
        except UserError as error:
            assert '\n' not in str(error) and len(str(error)) < 1500, number
            assert str(path) in str(error)
        assert time.process_time() - began < SLOWEST, number
        assert path.read_bytes() == spoilt, 'a reader wrote to its file'
    return accepted


def checkpoint():
    from mmengine.logging import HistoryBuffer

    return {
        'meta': {'epoch': 1, 'iter': 6, 'cfg': 'a = 1', 'x': np.arange(3.0)},
        'state_dict': {'w': torch.linspace(-1, 1, 500), 'b': torch.arange(20)},
        'message_hub': {'loss': HistoryBuffer([1.0], [1])},
        'optimizer': {'state': {0: {'m': torch.linspace(0, 1, 500)}}, 'param_groups': []},
    }


def test_a_damaged_checkpoint_is_refused_or_its_weights_are_the_right_ones(tmp_path):
    path, good = tmp_path / 'a.pth', checkpoint()
    torch.save(good, path)
    for content in fuzz(path.read_bytes(), path, load_checkpoint, seed=1):
        # The damage was in what has no meaning, such as a date in the archive's directory.
        assert torch.equal(content['state_dict']['w'], good['state_dict']['w'])
        assert torch.equal(content['state_dict']['b'], good['state_dict']['b'])
        assert torch.equal(
            content['optimizer']['state'][0]['m'], good['optimizer']['state'][0]['m']
        )
        assert content['meta']['iter'] == 6


def test_a_damaged_file_of_the_old_format_is_refused_or_read(tmp_path):
    path = tmp_path / 'a.pth'  # it has no checksums: a changed weight cannot be told
    torch.save(checkpoint(), path, _use_new_zipfile_serialization=False)
    for content in fuzz(path.read_bytes(), path, load_checkpoint, seed=2):
        assert isinstance(content, dict)


def test_a_damaged_run_record_is_refused_or_is_one(tmp_path):
    record = RunRecord('detection', 'coco', 'R-50', 'LARS', lr=0.1, metric='coco/AP', epochs=3)
    record.add_evaluation(1, 6, {'coco/AP': 31.5})
    path = record.save(tmp_path)
    for read in fuzz(path.read_bytes(), path, RunRecord.load, seed=3):
        assert isinstance(read, RunRecord)
        assert isinstance(read.backbone, str) and isinstance(read.evaluations, list)


def test_a_damaged_layer_metrics_table_is_refused_or_is_one(tmp_path):
    path = tmp_path / 'layer_metrics.csv'
    rows = [
        {'iteration': i, 'layer': f'layer{k}', 'alpha': 2.5 + k, 'entropy': 0.9, 'l2_norm': 3.0,
         'pca_energy': 0.4, 'eligible': k > 0}
        for i in (6, 12) for k in range(8)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(path, index=False)
    assert len(read_last(str(path))) == 8

    def read(place):
        try:
            return read_last(str(place))
        except (OSError, ValueError, KeyError) as error:  # as bocb_mm.report.layers.snapshots
            raise UserError(f'{place}: {" ".join(str(error).split())[:500]}') from None

    for table in fuzz(path.read_bytes(), path, read, seed=4):
        assert {'layer', 'alpha', 'eligible'} <= set(table.columns)
        assert table['alpha'].dtype.kind in 'fi'


@pytest.mark.parametrize('damage', ['truncated', 'empty', 'garbage', 'foreign', 'one bit'])
def test_resuming_names_a_damaged_checkpoint_and_takes_the_one_before(damage, tmp_path, caplog):
    for step in (3, 6):
        good = checkpoint()
        good['meta']['iter'] = step
        torch.save(good, tmp_path / f'iter_{step}.pth')
    last = tmp_path / 'iter_6.pth'
    data = last.read_bytes()
    (tmp_path / 'last_checkpoint').write_text(str(last))
    if damage == 'foreign':
        torch.save({'model': {}}, last)
    else:
        middle = bytearray(data)
        middle[len(data) // 2] ^= 1
        content = {
            'truncated': data[: len(data) * 2 // 3],
            'empty': b'',
            'garbage': b'\x80garbage' * 500,
            'one bit': bytes(middle),
        }
        last.write_bytes(content[damage])
    assert find_resumable(tmp_path) == tmp_path / 'iter_3.pth'
    assert 'iter_6.pth' in caplog.text


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path):
    import os

    for step in (3, 6, 9):
        good = checkpoint()
        good['meta']['iter'] = step
        torch.save(good, tmp_path / f'iter_{step}.pth')
        os.utime(tmp_path / f'iter_{step}.pth', (1e9 - step * 1e6, 1e9 - step * 1e6))
    assert find_resumable(tmp_path) == tmp_path / 'iter_9.pth'


def test_an_empty_or_missing_directory_has_nothing_to_resume(tmp_path):
    assert find_resumable(tmp_path) is None
    assert find_resumable(tmp_path / 'missing') is None
    for text in ('', '/nowhere/iter_1.pth', '\0', 'x' * 9999):
        (tmp_path / 'last_checkpoint').write_text(text)
        assert find_resumable(tmp_path) is None


def test_a_moved_directory_is_resumed_from_its_own_files(tmp_path):
    (tmp_path / 'old').mkdir()
    torch.save(checkpoint(), tmp_path / 'old' / 'iter_6.pth')
    (tmp_path / 'old' / 'last_checkpoint').write_text(str(tmp_path / 'old' / 'iter_6.pth'))
    (tmp_path / 'old').rename(tmp_path / 'new')
    assert find_resumable(tmp_path / 'new') == tmp_path / 'new' / 'iter_6.pth'


def test_a_checkpoint_error_is_a_user_error():
    assert issubclass(CheckpointError, UserError)


KEYS = [
    'model.backbone', 'model.backbone.type', 'model', 'train_dataloader', 'train_cfg',
    'train_dataloader.batch_size', 'train_dataloader.dataset', 'train_dataloader.dataset.data_root',
    'train_dataloader.dataset.ann_file', 'train_dataloader.dataset.pipeline', 'val_evaluator',
    'train_dataloader.num_workers', 'optim_wrapper', 'optim_wrapper.optimizer',
    'optim_wrapper.optimizer.lr', 'optim_wrapper.optimizer.type', 'optim_wrapper.type',
    'default_hooks', 'default_hooks.checkpoint', 'default_hooks.checkpoint.out_dir',
    'default_hooks.checkpoint.save_best', 'custom_hooks', 'randomness', 'randomness.seed',
    'auto_scale_lr', 'auto_scale_lr.base_batch_size', 'recipe', 'resume', 'load_from',
    'default_scope', 'pretrained', 'dataset_name', 'headline_metric', 'gamma', 'work_dir',
]  # fmt: skip
ODD = [None, '', 'x', -1, 0, 1e999, [], {}, [None], {'type': 'x'}, {'type': 3}, True, '\0', 'a/b']


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(ODD), min_size=1, max_size=3))
def test_a_config_with_odd_values_is_prepared_or_refused_in_one_line(tiny_config, changes):
    from bocb_mm.launch.train import TrainOptions, prepare

    config, folder = tiny_config
    options = TrainOptions(
        optimizer='AdamW', work_dir=str(folder / 'run'), cfg_options=changes, amp=True
    )
    try:
        assert prepare(str(config), options).lr_source
    except UserError as error:
        assert '\n' not in str(error).strip() and len(str(error)) < 1500
    assert not (folder / 'run').exists()


@pytest.fixture(scope='module')
def tiny_config(tmp_path_factory):
    from tests.tools.tiny_config import write_tiny_config

    folder = tmp_path_factory.mktemp('odd')
    return write_tiny_config(folder), folder
