"""Reading checkpoints: what is refused, in which words, and that nothing of it has run."""

import hashlib
import http.server
import os
import pickle
import re
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from bocb_mm.checkpoints import read
from bocb_mm.checkpoints.read import CheckpointError, UnsafeCheckpointError, load_checkpoint


class Calls:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def attack(tmp_path):
    """A command whose trace on the disk shows that it was run."""
    return f'touch {tmp_path / "was-run"}'


ATTACKS = {
    'os.system': lambda p: Calls(os.system, attack(p)),
    'builtins.eval': lambda p: Calls(eval, f'__import__("os").system("{attack(p)}")'),
    'builtins.exec': lambda p: Calls(exec, f'import os; os.system("{attack(p)}")'),
    'getattr': lambda p: Calls(getattr, Calls(__import__, 'os'), 'system'),
    'getattr of a class': lambda p: Calls(getattr, torch.Tensor, '__subclasses__'),
    'builtins.__import__': lambda p: Calls(__import__, 'os'),
    'pickle.loads': lambda p: Calls(pickle.loads, pickle.dumps(Calls(os.system, attack(p)))),
    'torch.load': lambda p: Calls(torch.load, str(p / 'other.pth')),
    'subprocess': lambda p: Calls(__import__('subprocess').call, attack(p)),
}
PLACES = {
    'at the top': lambda evil: {'state_dict': {}, 'x': evil},
    'in the optimizer state': lambda evil: {'optimizer': {'state': {0: {'step': evil}}}},
    "in mmengine's meta": lambda evil: {'meta': {'dataset_meta': {'classes': (evil,)}}},
    'as the whole file': lambda evil: evil,
}
FORMATS = {
    'zip': {},
    'before torch 1.6': {'_use_new_zipfile_serialization': False},
    'a newer pickle protocol': {'pickle_protocol': 4},
}


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('name', ATTACKS)
def test_a_pickle_that_would_run_code_is_refused_and_says_what_it_wanted(
    name, place, form, tmp_path
):
    path = tmp_path / 'evil.pth'
    torch.save(PLACES[place](ATTACKS[name](tmp_path)), path, **FORMATS[form])
    for lazy in (False, True):
        words = 'it wants to call .*--trust-checkpoint'
        with pytest.raises(UnsafeCheckpointError, match=words) as caught:
            load_checkpoint(path, lazy=lazy)
        # What is found first depends on the format: the argument of the getattr, or itself.
        wanted = {'getattr': '__import__|getattr', 'subprocess': 'call'}.get(name, name)
        assert re.search(wanted.split(' ')[0].split('.')[-1], str(caught.value))
        assert '\n' not in str(caught.value)
    assert not (tmp_path / 'was-run').exists()


def test_a_bare_pickle_is_refused_too(tmp_path):
    path = tmp_path / 'evil.pth'
    path.write_bytes(pickle.dumps(Calls(os.system, attack(tmp_path))))
    with pytest.raises(UnsafeCheckpointError, match='posix.system'):
        load_checkpoint(path)
    assert not (tmp_path / 'was-run').exists()


def test_trust_is_for_those_who_must(tmp_path):
    torch.save({'x': Calls(os.system, attack(tmp_path))}, tmp_path / 'mine.pth')
    assert load_checkpoint(tmp_path / 'mine.pth', trust=True) == {'x': 0}
    assert (tmp_path / 'was-run').exists()


def test_an_environment_variable_that_switches_the_safety_off_is_named(tmp_path, monkeypatch):
    torch.save({'x': Calls(os.system, attack(tmp_path))}, tmp_path / 'evil.pth')
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    with pytest.raises(CheckpointError, match='TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'):
        load_checkpoint(tmp_path / 'evil.pth')
    assert not (tmp_path / 'was-run').exists()


def full(path):
    """A checkpoint with every type mmengine 0.10.7 and the MM data sets put into one."""
    from mmengine.logging import HistoryBuffer

    buffer = HistoryBuffer([0.5, 0.25], [1, 1])
    content = {
        'meta': {
            'epoch': 1,
            'iter': 2,
            'dataset_meta': {'sigmas': np.arange(3, dtype=np.float32), 'classes': ('a',)},
            'best': np.float64(0.5),
            'flags': np.array([True]),
            'names': np.array(['a', 'b']),
        },
        'message_hub': {'log_scalars': {'train/loss': buffer}},
        'state_dict': {'w': torch.arange(4.0), 'h': torch.ones(2, dtype=torch.bfloat16)},
        'optimizer': {'state': {0: {'step': torch.tensor(3.0)}}, 'param_groups': [{'lr': 0.1}]},
    }
    torch.save(content, path)
    return content


def test_what_mmengine_stores_is_read(tmp_path):
    from mmengine.logging import HistoryBuffer

    content = full(tmp_path / 'a.pth')
    for lazy in (False, True):
        read = load_checkpoint(tmp_path / 'a.pth', lazy=lazy)
        assert torch.equal(read['state_dict']['w'], content['state_dict']['w'])
        assert read['meta']['best'] == 0.5
        assert read['meta']['names'].tolist() == ['a', 'b']
        buffer = read['message_hub']['log_scalars']['train/loss']
        assert isinstance(buffer, HistoryBuffer)
        assert buffer.mean() == 0.375


def test_numpy_1_spelled_its_module_another_way(tmp_path):
    data = pickle.dumps({'a': np.arange(2.0), 'b': np.float32(1)}, protocol=2)
    torch.save({'a': 1}, tmp_path / 'shell.pth')
    with (
        zipfile.ZipFile(tmp_path / 'shell.pth') as old,
        zipfile.ZipFile(tmp_path / 'numpy1.pth', 'w') as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if name.endswith('data.pkl'):
                content = data.replace(b'numpy._core', b'numpy.core')
                assert b'numpy.core.multiarray' in content
            new.writestr(name, content)
    assert load_checkpoint(tmp_path / 'numpy1.pth')['a'].tolist() == [0.0, 1.0]


def test_safetensors_are_read(tmp_path):
    from safetensors.torch import save_file

    save_file({'w': torch.arange(3.0)}, tmp_path / 'w.safetensors')
    assert load_checkpoint(tmp_path / 'w.safetensors')['w'].tolist() == [0, 1, 2]
    (tmp_path / 'bad.safetensors').write_bytes(b'\xff' * 64)
    with pytest.raises(CheckpointError, match='damaged or not a checkpoint'):
        load_checkpoint(tmp_path / 'bad.safetensors')


BROKEN = {
    'empty': (lambda data: b'', 'is empty'),
    'garbage': (lambda data: b'garbage' * 99, 'damaged or not a checkpoint'),
    'truncated': (lambda data: data[: len(data) // 2], 'truncated or damaged'),
    'a web page': (lambda data: b'<!DOCTYPE html><html>', 'is a web page'),
    'a pointer': (
        lambda data: b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n',
        'git lfs pull',
    ),
    'one bit of a weight': (
        lambda data: data.replace(torch.arange(4.0).numpy().tobytes(),
                                  torch.arange(4.0).add(1e-3).numpy().tobytes(), 1),
        'the checksum of .* does not match',
    ),
}  # fmt: skip


@pytest.mark.parametrize('how', BROKEN)
def test_a_broken_file_is_one_line_with_its_path(how, tmp_path):
    full(tmp_path / 'a.pth')
    spoil, words = BROKEN[how]
    (tmp_path / 'b.pth').write_bytes(spoil((tmp_path / 'a.pth').read_bytes()))
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(tmp_path / 'b.pth')
    assert str(tmp_path / 'b.pth') in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_zip_bomb_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / 'bomb.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a/data.pkl', b'\0' * (1 << 24))
    with pytest.raises(CheckpointError, match='compressed'):
        load_checkpoint(tmp_path / 'bomb.pth')


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('epoch_11.pth', 'no such checkpoint file; did you mean epoch_12.pth'),
        ('', 'is a directory'),
        ('list.pth', 'holds a list, expected a dict'),
    ],
)
def test_a_wrong_path_is_one_line(name, words, tmp_path):
    torch.save([1], tmp_path / 'list.pth')
    torch.save({}, tmp_path / 'epoch_12.pth')
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(tmp_path / name)


def test_unknown_names_and_remote_stores_are_one_line():
    with pytest.raises(CheckpointError, match='no published weights.*did you mean'):
        load_checkpoint('open-mmlab://resnet51')
    with pytest.raises(CheckpointError, match='copy the file here'):
        load_checkpoint('s3://bucket/a.pth')


@pytest.fixture
def server(tmp_path):
    """A web server of this machine, with its folder and address; PyTorch's cache is elsewhere."""
    folder = tmp_path / 'www'
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Quiet) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        before = torch.hub.get_dir()
        torch.hub.set_dir(str(tmp_path / 'hub'))
        yield folder, f'http://127.0.0.1:{httpd.server_port}'
        torch.hub.set_dir(before)
        httpd.shutdown()


def test_a_download_is_compared_with_the_hash_in_its_name(server, tmp_path, monkeypatch):
    monkeypatch.setattr('bocb_mm.checkpoints.download._PROMISING', ('127.0.0.1',))
    folder, address = server
    torch.save({'w': torch.ones(2)}, tmp_path / 'a.pth')
    data = (tmp_path / 'a.pth').read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:8]
    (folder / f'r50_8xb32_in1k_20210831-{digest}.pth').write_bytes(data)
    (folder / 'r50_8xb32_in1k_20210831-0badbeef.pth').write_bytes(data)
    (folder / 'nohash.pth').write_bytes(data)
    good = load_checkpoint(f'{address}/r50_8xb32_in1k_20210831-{digest}.pth')
    assert good['w'].tolist() == [1, 1]
    assert load_checkpoint(f'{address}/nohash.pth')['w'].tolist() == [1, 1]
    for _ in range(2):  # from the cache as well
        with pytest.raises(CheckpointError, match='its name ends in 0badbeef; the download'):
            load_checkpoint(f'{address}/r50_8xb32_in1k_20210831-0badbeef.pth')
    with pytest.raises(CheckpointError, match='cannot be downloaded'):
        load_checkpoint(f'{address}/missing.pth')


def test_a_file_of_an_installed_package_is_read_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / 'some_weights_of_ours'
    (package / 'models').mkdir(parents=True)
    (package / '__init__.py').write_text('raise RuntimeError("imported")')
    torch.save({'w': torch.ones(2)}, package / 'models' / 'w.pth')
    monkeypatch.syspath_prepend(tmp_path)
    name = 'package://some_weights_of_ours/models/w.pth'
    assert torch.equal(load_checkpoint(name)['w'], torch.ones(2))
    with pytest.raises(CheckpointError, match='no such checkpoint file'):
        load_checkpoint('package://some_weights_of_ours/models/v.pth')
    with pytest.raises(CheckpointError, match='pip install some-weights-of-yours'):
        load_checkpoint('package://some_weights_of_yours/models/w.pth')


def test_models_of_one_file_name_have_a_file_each_in_the_cache():
    from bocb_mm.checkpoints.download import _name_in_cache

    a = 'https://huggingface.co/timm/{}/resolve/main/model.safetensors'
    assert _name_in_cache(a.format('r50')).startswith('timm--r50--model.')
    assert _name_in_cache(a.format('r50')).endswith('.safetensors')
    assert _name_in_cache(a.format('r18')) != _name_in_cache(a.format('r50'))
    assert _name_in_cache('https://host/a/r50-0676ba61.pth') == 'r50-0676ba61.pth'
    for one, other in (
        ('https://h/runA/epoch_12.pth', 'https://h/runB/epoch_12.pth'),
        ('https://drive.host/uc?id=AAA', 'https://drive.host/uc?id=BBB'),
        (a.format('r50'), a.format('r50').replace('main', 'v2')),
    ):
        assert _name_in_cache(one) != _name_in_cache(other)
        assert _name_in_cache(one) == _name_in_cache(one)


def test_digits_in_a_name_that_promise_nothing_are_a_warning(tmp_path, capsys):
    from bocb_mm.checkpoints.download import verify_hash

    path = tmp_path / 'resnet50-20240501.pth'
    path.write_bytes(b'weights')
    verify_hash(path, promised=False)
    assert 'its name ends in 20240501, which may be a date' in capsys.readouterr().err
    with pytest.raises(CheckpointError, match='is damaged or not the published file'):
        verify_hash(path)


def test_a_file_that_was_saved_without_checksums_is_read(tmp_path):
    path = tmp_path / 'own.pth'
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'state_dict': {'w': torch.ones(2000)}}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(load_checkpoint(path)['state_dict']['w'], torch.ones(2000))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_the_trust_of_a_process_reaches_every_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(read, '_trusted', False)
    path = tmp_path / 'own.pth'
    torch.save({'w': torch.ones(2), 'callback': Path}, path)
    with pytest.raises(UnsafeCheckpointError):
        load_checkpoint(path)
    read.install_safe_loading(trust=True)
    assert load_checkpoint(path)['callback'] is Path
    with pytest.raises(UnsafeCheckpointError):
        load_checkpoint(path, trust=False)


def test_every_way_mmengine_loads_goes_through_the_one_function(tmp_path):
    from mmengine.runner import checkpoint as mm

    before = dict(mm.CheckpointLoader._schemes)
    torch.save({'x': Calls(os.system, attack(tmp_path))}, tmp_path / 'evil.pth')
    try:
        read.install_safe_loading()
        assert set(mm.CheckpointLoader._schemes.values()) == {read.load_from_bocb_mm}
        with pytest.raises(UnsafeCheckpointError):
            mm.load_checkpoint(torch.nn.Linear(1, 1), str(tmp_path / 'evil.pth'))
    finally:
        mm.CheckpointLoader._schemes = before


def test_the_config_in_a_checkpoint_is_not_executed(tmp_path):
    # mmengine 0.10.7's Runner.resume executes meta['config'] as Python.
    torch.save({'meta': {'config': 'import os', 'cfg': 'a = 1'}}, tmp_path / 'a.pth')
    assert read.load_from_bocb_mm(str(tmp_path / 'a.pth'))['meta'] == {'cfg': 'a = 1'}


def test_plain_torch_load_reads_mmengine_checkpoints_once_allowed(tmp_path):
    from bocb_mm.checkpoints.read import safe_globals
    from bocb_mm.compat import allow_mmengine_checkpoints

    full(tmp_path / 'a.pth')
    allow_mmengine_checkpoints(safe_globals())
    assert torch.load(tmp_path / 'a.pth')['meta']['epoch'] == 1
    torch.save({'x': Calls(getattr, torch.Tensor, 'add')}, tmp_path / 'b.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'b.pth')
