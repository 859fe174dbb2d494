"""layer_metrics: which layers, under which names, and when alpha means something."""

import logging
import math
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bocb_mm.checkpoints.contents import CONTAINERS
from bocb_mm.errors import UserError
from bocb_mm.metrics import COLUMNS, iter_weights, layer_metrics, watch


class Attention(nn.Module):
    """One of every kind of weight."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 24, 4, 4)
        self.conv = nn.Conv2d(24, 32, 3, bias=False)
        self.depthwise = nn.Conv2d(32, 32, 7, groups=32)
        self.norm = nn.BatchNorm2d(32)
        self.qkv = nn.Linear(32, 96)
        self.mha = nn.MultiheadAttention(32, 4)
        self.position = nn.Parameter(torch.randn(1, 49, 32))
        self.scale = nn.Parameter(torch.rand(32, 1, 1))
        self.token_embed = nn.Embedding(100, 32)
        self.head = nn.Linear(32, 24)
        self.register_buffer('attn_mask', torch.randn(4, 4))


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return Attention()


KINDS = {
    'position': 'parameter', 'scale': 'parameter', 'patch': 'conv', 'conv': 'conv',
    'depthwise': 'depthwise', 'qkv[q]': 'qkv', 'qkv[k]': 'qkv', 'qkv[v]': 'qkv',
    'mha.in_proj_weight[q]': 'qkv', 'mha.in_proj_weight[k]': 'qkv', 'mha.in_proj_weight[v]': 'qkv',
    'mha.out_proj': 'linear', 'token_embed': 'embedding', 'head': 'linear',
}  # fmt: skip


def test_every_weight_has_a_row_and_a_kind(model):
    frame = layer_metrics(model)
    assert dict(zip(frame['layer'], frame['kind'])) == KINDS
    assert tuple(frame.columns) == COLUMNS
    assert list(frame['layer_index']) == list(range(len(KINDS)))
    weights = [p for p in model.parameters() if p.dim() > 1]
    assert frame['n_params'].sum() == sum(p.numel() for p in weights)
    row = frame.set_index('layer').loc['conv']
    assert row['shape'] == '32x24x3x3'
    assert row['l2_norm'] == pytest.approx(float(model.conv.weight.norm()), rel=1e-6)


def test_eligible_says_why_not(model):
    frame = layer_metrics(model).set_index('layer')
    assert 'one row' in frame.loc['depthwise', 'reason']
    assert 'one row' in frame.loc['scale', 'reason']
    rest = frame.drop(['depthwise', 'scale'])
    assert rest['eligible'].all() and (rest['reason'] == '').all()
    assert not layer_metrics(model, min_eigenvalues=33).set_index('layer').loc['head', 'eligible']


def test_a_state_dict_gives_the_same_rows_as_its_model(model):
    columns = ['layer', 'kind', 'shape', 'alpha', 'entropy', 'l2_norm', 'pca_energy', 'eligible']
    expected = layer_metrics(model)[columns]
    state = model.state_dict()
    for source in (state, {'state_dict': state, 'meta': {}}, {'model': state, 'epoch': 3}):
        pd.testing.assert_frame_equal(layer_metrics(source)[columns], expected)
    wrapped = {f'module.{k}': v for k, v in state.items()}
    pd.testing.assert_frame_equal(layer_metrics(wrapped)[columns], expected)


@pytest.mark.parametrize('container', CONTAINERS)
def test_every_container_of_checkpoints_beside_loose_tensors(model, container):
    # PyTorch's ImageNet example keeps best_acc1, a tensor, beside state_dict.
    state = {f'module.{k}': v for k, v in model.state_dict().items()}
    content = {'epoch': 3, 'best_acc1': torch.tensor(71.2), container: state, 'optimizer': {}}
    assert list(layer_metrics(content)['layer']) == list(KINDS)


def test_transposed_convolutions_have_their_outputs_as_rows():
    torch.manual_seed(0)
    plain = nn.Conv2d(24, 40, 4, bias=False)
    turned = nn.ConvTranspose2d(24, 40, 4, bias=False)
    grouped = nn.ConvTranspose2d(24, 40, 4, groups=2, bias=False)
    with torch.no_grad():
        plain.weight += 0.05 * torch.randn(
            1, 24, 1, 1
        )  # means over the outputs, which centring takes off
        turned.weight.copy_(plain.weight.transpose(0, 1))
    columns = ['alpha', 'entropy', 'l2_norm', 'pca_energy', 'spectral_entropy']
    expected = layer_metrics(plain)[columns]
    frame = layer_metrics(turned)
    assert frame.loc[0, ['kind', 'shape']].tolist() == ['transposed', '24x40x4x4']
    pd.testing.assert_frame_equal(frame[columns], expected)
    by_name = layer_metrics({'head.deconv_layers.0.weight': turned.weight})
    pd.testing.assert_frame_equal(by_name[columns], expected)
    # a group's outputs see its own inputs only: (40, 12) a slice, as in a grouped convolution
    (weight,) = iter_weights(grouped)
    assert weight.matrices().shape == (16, 40, 12)
    assert torch.equal(weight.matrices()[0, 25], grouped.weight[12:, 5, 0, 0])


def test_a_bilinear_layer_is_linear_in_products():
    torch.manual_seed(0)
    net = nn.Bilinear(6, 7, 30)
    frame = layer_metrics(net)
    flat = layer_metrics({'w.weight': net.weight.detach().flatten(1)})
    assert frame.loc[0, 'kind'] == 'bilinear'
    for column in ('alpha', 'pca_energy', 'n_eigenvalues'):
        assert frame.loc[0, column] == flat.loc[0, column]
    assert layer_metrics({'bilinear.weight': net.weight}).loc[0, 'alpha'] == flat.loc[0, 'alpha']


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(
    ('scale', 'dtype'),
    [(1e20, torch.float32), (1e37, torch.float32), (1e-3, torch.float32), (1e200, torch.float64),
     (1e306, torch.float64)],
)  # fmt: skip
def test_any_size_of_parameters(scale, dtype):
    w = torch.randn(64, 48, generator=torch.Generator().manual_seed(0), dtype=dtype)
    one, scaled = (layer_metrics({'w.weight': x}).iloc[0] for x in (w, w * scale))
    assert scaled['eligible']
    for column in ('alpha', 'entropy', 'pca_energy', 'spectral_entropy'):
        assert scaled[column] == pytest.approx(one[column], rel=1e-3)
    assert scaled['l2_norm'] == pytest.approx(one['l2_norm'] * scale, rel=1e-5)


def test_a_layer_that_lapack_gives_up_on_has_a_row_with_the_reason(monkeypatch):
    from bocb_mm.metrics import layer

    def give_up(*_):
        raise np.linalg.LinAlgError('Eigenvalues did not converge')

    monkeypatch.setattr(layer, 'spectrum', give_up)
    row = layer_metrics({'w.weight': torch.randn(64, 48)}).iloc[0]
    assert row['reason'] == 'no eigenvalues: Eigenvalues did not converge' and row['l2_norm'] > 0


def test_wrapped_and_compiled_models_keep_the_names(model):
    names = list(layer_metrics(model)['layer'])
    compiled = torch.compile(model)
    inner = Attention()
    inner.mha = torch.compile(inner.mha)
    for wrapped in (nn.DataParallel(model), compiled, nn.DataParallel(compiled), inner):
        assert list(layer_metrics(wrapped)['layer']) == names
    assert list(layer_metrics(compiled.state_dict())['layer']) == names


def test_ddp_keeps_the_names(model, tmp_path):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        assert list(layer_metrics(wrapped)['layer']) == list(KINDS)
    finally:
        torch.distributed.destroy_process_group()


def test_of_a_parametrized_weight_the_effective_one_is_measured():
    from torch.nn.utils import parametrizations

    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Linear(16, 12))
    made = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Linear(16, 12))
    made.load_state_dict(plain.state_dict())
    parametrizations.weight_norm(made[0])
    made[0].parametrizations.weight.original1.data *= 100  # g makes up for it
    parametrizations.spectral_norm(made[1])
    before = {k: v.clone() for k, v in made.state_dict().items()}
    found = layer_metrics(made.train())
    assert list(found['layer']) == ['0', '1'] and list(found['kind']) == ['conv', 'linear']
    expected = layer_metrics(plain).set_index('layer')
    assert found['l2_norm'][0] == pytest.approx(expected.loc['0', 'l2_norm'], rel=1e-5)
    effective = float(made.eval()[1].weight.norm())
    assert found['l2_norm'][1] == pytest.approx(effective, rel=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in made.state_dict().items())


def test_tied_weights_count_once():
    model = nn.Sequential(nn.Linear(24, 24), nn.Linear(24, 24))
    model[1].weight = model[0].weight
    assert list(layer_metrics(model)['layer']) == ['0']
    assert list(layer_metrics(model.state_dict())['layer']) == ['0']


def rank_one():
    return torch.outer(torch.linspace(1, 2, 64), torch.linspace(-30, 40, 48))


STRANGE = {
    'zero': (torch.zeros(32, 32), 'zero'),
    'constant': (torch.full((32, 32), 0.5), 'constant'),
    'nan': (torch.randn(32, 32).index_fill(0, torch.tensor([3]), math.nan), 'not finite'),
    'inf': (torch.randn(32, 32).index_fill(0, torch.tensor([3]), math.inf), 'not finite'),
    '1x1': (torch.randn(1, 1), 'constant'),
    'one row': (torch.randn(1, 500), 'one row'),
    'two rows': (torch.randn(2, 500), 'too few'),
    'rank one': (rank_one(), 'too few eigenvalues: 1 '),
    'rank one bf16': (rank_one().bfloat16(), ''),  # rounding to bf16 gives it full rank
    'stem': (torch.randn(64, 3, 7, 7), ''),
    'bf16': (torch.randn(64, 48).bfloat16(), ''),
    'half': (torch.randn(64, 48).half(), ''),
    'double': (torch.randn(64, 48).double(), ''),
    'heavy tail': (torch.distributions.StudentT(2.5).sample((96, 64)), ''),
    'tiny': (torch.randn(64, 48) * 1e-6, 'too few eigenvalues: 0 '),
    'not contiguous': (torch.randn(48, 64).t(), ''),
    'conv1d': (torch.randn(32, 24, 3), ''),
    'conv3d': (torch.randn(32, 24, 3, 3, 3), ''),
}


@pytest.mark.parametrize('name', STRANGE)
def test_strange_weights_give_a_row_and_a_reason(name):
    weight, reason = STRANGE[name]
    row = layer_metrics({'layer.weight': weight}).iloc[0]
    assert row['reason'].startswith(reason) and row['eligible'] == (reason == '')
    assert math.isfinite(row['entropy']) == (reason != 'not finite')
    if reason == '':
        assert 1 < row['alpha'] < 1e3
        assert 0 < row['pca_energy'] <= 1
        exact = layer_metrics({'layer.weight': weight}, precision='float64').iloc[0]
        assert row['alpha'] == pytest.approx(exact['alpha'], rel=1e-3)
        assert row['pca_energy'] == pytest.approx(exact['pca_energy'], rel=1e-4)


def test_marchenko_pastur_spectrum():
    # A random matrix without structure: eigenvalues in the law's support, alpha far above 6.
    torch.manual_seed(0)
    n, m = 1000, 500
    frame = layer_metrics({'w.weight': torch.randn(n, m) / n**0.5})
    assert frame.loc[0, 'alpha'] > 6
    edge = (1 + (m / n) ** 0.5) ** 2
    assert frame.loc[0, 'alpha_xmin'] < edge * 1.05
    assert frame.loc[0, 'spectral_entropy'] < math.log(m)


@pytest.fixture(scope='module')
def nets():
    import torchvision

    torch.manual_seed(0)
    small_swin = torchvision.models.SwinTransformer(
        [4, 4], 24, [2, 2], [2, 4], [7, 7], num_classes=30
    )
    return {
        'resnet18': torchvision.models.resnet18(num_classes=50),
        'mobilenet_v3_small': torchvision.models.mobilenet_v3_small(num_classes=50),
        'swin': small_swin,
    }


@pytest.mark.parametrize('name', ['resnet18', 'mobilenet_v3_small', 'swin'])
def test_alpha_equals_weightwatcher_on_every_layer_both_cover(nets, name):
    from bocb_mm.metrics.weightwatcher import analyze

    theirs = analyze(nets[name])
    for precision, tolerance in (('float64', 1e-6), ('auto', 1e-3)):
        ours = layer_metrics(nets[name], split_qkv=False, precision=precision).set_index('layer')
        assert set(theirs) <= set(ours.index) and len(theirs) >= 10
        for layer, row in theirs.items():
            assert ours.loc[layer, 'alpha'] == pytest.approx(row['alpha'], rel=tolerance), layer
            assert ours.loc[layer, 'alpha_xmin'] == pytest.approx(row['xmin'], rel=tolerance), layer


def test_weightwatcher_backend_and_its_containment(model, capsys):
    root = logging.getLogger()
    before = (root.level, list(root.handlers), list(warnings.filters))
    ours = layer_metrics(model, precision='float64').set_index('layer')
    theirs = layer_metrics(model, backend='weightwatcher').set_index('layer')
    assert (root.level, list(root.handlers), list(warnings.filters)) == before
    assert capsys.readouterr() == ('', '')
    assert 'weightwatcher=0.7.7' in theirs['settings'].iloc[0]
    covered = ours['kind'] != 'parameter'
    np.testing.assert_allclose(ours[covered]['alpha'], theirs[covered]['alpha'], rtol=1e-6)
    assert theirs.loc['position', 'reason'] == 'skipped by WeightWatcher'
    with pytest.raises(UserError, match='median'):
        layer_metrics(model, backend='weightwatcher', fit='median')


def test_the_float64_fallback_is_taken_where_float32_would_mislead(monkeypatch):
    from bocb_mm.metrics import layer

    asked = []
    real = layer.spectrum
    monkeypatch.setattr(layer, 'spectrum', lambda s, k, p: asked.append(p) or real(s, k, p))
    layer_metrics({'w.weight': torch.randn(64, 48)})
    assert asked == ['float32']
    asked.clear()
    layer_metrics({'w.weight': rank_one()})  # null space of float32 is above the floor of 1e-5
    assert asked == ['float32', 'float64']


def test_settings_are_in_the_table_and_survive_csv(model, tmp_path):
    frame = layer_metrics(model, bins=64, k=(3, 5), fit='median', layers=['qkv*', 'head'])
    frame.to_csv(tmp_path / 'x.csv', index=False)
    back = pd.read_csv(tmp_path / 'x.csv', keep_default_na=False)
    settings = dict(pair.split('=') for pair in back['settings'].iloc[0].split(' '))
    assert settings['bins'] == '64' and settings['fit'] == 'median' and settings['k'] == '3+5'
    assert settings['bocb_mm'] and frame.attrs['bins'] == 64
    assert list(back['layer']) == ['qkv[q]', 'qkv[k]', 'qkv[v]', 'head']
    assert (frame['pca_energy'] < frame['pca_energy_5']).all()


def test_nothing_of_the_model_or_the_process_changes(model):
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.get_rng_state(), np.random.get_state()[1].copy()
    threads = torch.get_num_threads()
    layer_metrics(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random[0])
    assert (np.random.get_state()[1] == random[1]).all()
    assert model.training and model.head.weight.grad is None and threads == torch.get_num_threads()


def test_memory_stays_below_three_times_the_largest_layer():
    # In a process of its own: peak resident memory before and during, float64 after auto.
    code = """
import resource, torch
from bocb_mm.metrics import layer_metrics
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
weights = {'a.weight': torch.randn(16000, 900), 'b.weight': torch.randn(900, 900)}
layer_metrics({'w.weight': torch.randn(64, 64)})
before = peak()
for precision in ('auto', 'float64'):
    layer_metrics(weights, precision=precision)
    print((peak() - before) / (16000 * 900 * 4))
"""
    run = [sys.executable, '-c', code]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    more = [float(line) for line in done.stdout.split()]
    assert len(more) == 2 and max(more) <= 2, more  # the layer itself is the third


def test_works_without_mmengine(tmp_path):
    code = (
        'import sys; sys.modules["mmengine"] = None\n'
        'import torch; from bocb_mm.metrics import layer_metrics, watch\n'
        'w = watch(torch.nn.Linear(32, 32)); w.snapshot(epoch=0); assert len(w.history) == 1\n'
        'assert not [m for m in sys.modules if m.startswith(("mmengine.", "mmcv", "mmdet"))]'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_watch_keeps_a_history_and_a_file(tmp_path):
    model = nn.Linear(32, 32)
    watcher = watch(model, tmp_path / 'w.csv', bins=16)
    watcher.snapshot(epoch=0)
    with torch.no_grad():
        model.weight.mul_(2)
    watcher.snapshot(epoch=1)
    norms = watcher.history['l2_norm']
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-6)
    assert list(pd.read_csv(tmp_path / 'w.csv')['epoch']) == [0, 1]
    with pytest.raises(UserError, match='does not exist'):
        watch(model, tmp_path / 'none' / 'w.csv')


@pytest.mark.parametrize(
    ('source', 'kwargs', 'message'),
    [
        (3, {}, 'int given'),
        ({}, {}, 'holds no weights'),
        ({'meta': {}}, {}, 'holds no weights, its keys are meta;'),
        ('absent.pth', {}, 'absent.pth: no such'),
        (nn.Linear(2, 2), {'bins': 1}, 'bins=1'),
        (nn.Linear(2, 2), {'k': 0}, 'k=0'),
        (nn.Linear(2, 2), {'k': []}, 'expected a whole number'),
        (nn.Linear(2, 2), {'min_eigenvalues': 'x'}, "min_eigenvalues='x'"),
        (nn.Linear(2, 2), {'fit': 'KS'}, 'did you mean ks'),
        (nn.Linear(2, 2), {'precision': 'float16'}, 'float16'),
        (nn.Linear(2, 2), {'backend': 'ww'}, 'weightwatcher'),
        (nn.Linear(2, 2, device='meta'), {}, 'meta device'),
    ],
)
def test_mistakes_are_one_clear_line(source, kwargs, message):
    with pytest.raises(UserError) as error:
        layer_metrics(source, **kwargs)
    assert message in str(error.value) and '\n' not in str(error.value)


def test_a_model_without_matrices_gives_an_empty_table():
    frame = layer_metrics(nn.LayerNorm(4))
    assert frame.empty and tuple(frame.columns) == COLUMNS
