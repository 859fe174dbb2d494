"""tools/layer_metrics.py: files of several makers in, one table out."""

import pandas as pd
import pytest
import torch
from torch import nn


@pytest.fixture
def files(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.Conv2d(32, 32, 1))
    state = net.state_dict()
    tuned = {f'backbone.{k}': v + 0.01 if v.is_floating_point() else v for k, v in state.items()}
    torch.save(state, tmp_path / 'torchvision.pth')
    torch.save({'meta': {'epoch': 1}, 'state_dict': tuned}, tmp_path / 'mmengine.pth')
    torch.save({'model': state, 'epoch': 3}, tmp_path / 'timm.pth')
    save_file(state, tmp_path / 'weights.safetensors')
    return tmp_path


NAMES = ['torchvision.pth', 'mmengine.pth', 'timm.pth', 'weights.safetensors']


def test_measures_files_side_by_side(files, run_tool, capsys):
    out = files / 'out.csv'
    paths = [files / n for n in NAMES]
    status, shown, progress = run_tool('layer_metrics', *paths, '--out', out, capsys=capsys)
    assert status == 0, progress
    frame = pd.read_csv(out, keep_default_na=False)
    assert list(frame['file'].unique()) == NAMES and len(frame) == 8
    assert frame['eligible'].tolist() == [True] * 8
    plain, tuned = (frame[frame['file'] == n].reset_index() for n in NAMES[:2])
    assert list(tuned['layer']) == ['backbone.0', 'backbone.2'] and (plain['layer'] != '').all()
    assert (plain['l2_norm'] != tuned['l2_norm']).all()
    same = frame[frame['file'] == NAMES[3]].reset_index()
    assert (same['alpha'] == plain['alpha']).all()
    assert '8 rows' in shown and 'A: torchvision.pth' in shown
    assert shown.count('│ 0 ') == 1  # the four files meet in one layer, without `backbone.`


def test_the_table_of_several_files_fits_into_80_columns(files, run_tool, monkeypatch, capsys):
    monkeypatch.setenv('COLUMNS', '80')
    paths = [files / n for n in NAMES[:2]]
    _, shown, _ = run_tool('layer_metrics', *paths, '--out', files / 'out.csv', capsys=capsys)
    table = [line for line in shown.splitlines() if line.startswith(('┃', '│'))]
    assert max(map(len, table)) <= 80 and '…' not in shown
    assert all(name in table[0] for name in ('layer', 'alpha', 'entropy', 'l2_norm', 'pca_energy'))
    frame = pd.read_csv(files / 'out.csv')
    assert f'{frame.loc[3, "pca_energy"]:.3g} │' in table[-1]


def test_options_reach_the_table(files, run_tool, capsys):
    out = files / 'out.csv'
    options = ['--k', '1', '3', '--bins', '16', '--fit', 'median', '--layers', '2', '--quiet']
    status, shown, _ = run_tool(
        'layer_metrics', files / NAMES[0], '--out', out, *options, capsys=capsys
    )
    frame = pd.read_csv(out)
    assert status == 0 and shown == ''
    assert frame['layer'].astype(str).tolist() == ['2']
    assert 'bins=16' in frame.loc[0, 'settings'] and 'fit=median' in frame.loc[0, 'settings']
    assert frame.loc[0, 'pca_energy'] < frame.loc[0, 'pca_energy_3']


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['absent.pth'], 'absent.pth'),
        (['torchvision.pth', '--fit', 'ml'], 'ml'),
        (['torchvision.pth', '--layers', 'head*'], 'no weight matches head*'),
        (['text.pth'], 'text.pth'),
        (['none.pth'], 'has two dimensions'),
    ],
)
def test_mistakes_are_one_line(files, run_tool, argv, message, capsys):
    (files / 'text.pth').write_text('not a checkpoint')
    torch.save({'bias': torch.ones(3)}, files / 'none.pth')
    argv = [files / argv[0], *argv[1:]]
    status, _, error = run_tool(
        'layer_metrics', *argv, '--out', files / 'o.csv', '--quiet', capsys=capsys
    )
    assert status == 2 and message in error and error.count('\n') == 1
    assert not (files / 'o.csv').exists()


def test_the_folder_of_out_must_exist(files, run_tool, capsys):
    out = files / 'absent' / 'o.csv'
    status, _, error = run_tool('layer_metrics', files / NAMES[0], '--out', out, capsys=capsys)
    assert status == 2 and 'directory does not exist' in error
