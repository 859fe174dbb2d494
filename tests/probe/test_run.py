"""A probe from its options to its answer, with trainings that are a formula."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from bocb_mm.errors import UserError
from bocb_mm.probe import Options, plan, probe
from bocb_mm.probe.target import starts_of
from tests.probe.conftest import hill


@pytest.fixture
def options(tmp_path, photos):
    return Options(out=str(tmp_path / 'out'), backbone='R-18-XS', data=photos, jobs=2)


def run(options, fake, lines=None):
    return probe(options, say=(lines if lines is not None else []).append, make_trials=fake)


def read(options):
    return json.loads(Path(options.out, 'probe.json').read_text())


def trained(options):
    return json.loads(Path(options.out, 'runs', 'fake.json').read_text())


def test_a_whole_probe(options, fake):
    lines = []
    result, status = run(options, fake, lines)
    assert status == 0 and result['gap']['verdict'] == 'adaptive'
    assert len(trained(options)) == 44
    assert lines[0].startswith(
        'R-18-XS on my pets: 44 runs of 400 iterations at batch 64, about 42 s each'
    )
    assert '44 of 44: ' in lines[-5] and lines[-5].endswith(' s')
    assert lines[-4].startswith(
        'After 400 iterations at batch 64, R-18-XS is coupled to adaptive rates'
    )
    assert read(options)['schema_version'] == 1 and read(options) == json.loads(json.dumps(result))
    page = Path(options.out, 'probe.html').read_text()
    assert page.index('coupled to adaptive rates') < page.index('<main')
    assert result['subject']['floor'] == 20.0  # five classes
    assert result['cost']['runs'] == 44


def test_an_interrupted_probe_goes_on_and_trains_nothing_twice(options, fake):
    for n, expected in ((7, 75), (25, 75), (10**6, 0)):
        fake.limit = n
        result, status = run(options, fake)
        assert status == expected
        assert (result['gap']['verdict'] == 'adaptive') == (status == 0)
    assert len(trained(options)) == 44 and len(fake.looked) == 1  # nor measured twice
    again, status = run(options, fake)
    assert status == 0 and again['gap'] == result['gap']


def test_more_seeds_add_their_runs_only(options, fake):
    run(options, fake)
    result, _ = run(replace(options, seeds=8), fake)
    assert len(trained(options)) == 60 and result['gap']['seeds'] == 8


def test_more_optimizers_add_their_runs_only(options, fake):
    few = replace(options, optimizers=('SGD', 'AdamW'))
    run(few, fake)
    before = trained(options)
    result, _ = run(options, fake)
    assert len(before) == 22 and len(trained(options)) == 44
    assert before.items() <= trained(options).items()
    assert [row['name'] for row in result['optimizers']] == list(options.optimizers)
    with pytest.raises(UserError, match='the optimizers or their rates'):
        run(few, fake)  # the page would lose what the folder has


def test_twice_the_length(options, fake):
    result, _ = run(replace(options, lengths=(1.0, 2.0)), fake)
    assert len(trained(options)) == 60
    (longer,) = result['lengths']
    assert longer['length'] == 2
    lengths = {json.loads(k)[3]['train_cfg.max_iters'] for k in trained(options)}
    assert lengths == {400, 800}


def test_of_an_error_the_smallest_is_searched_for(options, fake):
    fake.metric, fake.larger_is_better = 'NME', False
    fake.respond = staticmethod(lambda trial: 1 - hill(trial) / 100)
    result, status = run(options, fake)
    assert status == 0 and result['gap']['verdict'] == 'adaptive'
    powers = {row['name']: row['lr'] / row['default_lr'] for row in result['optimizers']}
    assert set(powers.values()) == {1.0} and len(trained(options)) == 44


@pytest.mark.parametrize(
    ('lengths', 'words'),
    [
        ((1.0, 1.001), '1 and 1.001 times the schedule are both 400 iterations at batch 64'),
        ((1.0, 0.1), 'a schedule of max_iters 40 is too short'),
        ((0.1,), 'a schedule of max_iters 40 is too short'),
    ],
)
def test_lengths_of_one_schedule_or_of_none_are_refused_at_once(options, fake, lengths, words):
    steps = {'param_scheduler': [dict(type='MultiStepLR', by_epoch=False, milestones=[8, 11])]}
    with pytest.raises(UserError, match=words):
        run(replace(options, lengths=lengths, cfg_options=steps), fake)
    assert not Path(options.out).exists() and not fake.looked


def test_layers_are_measured_once_an_optimizer(options, fake):
    run(options, fake)
    measured = [json.loads(k) for k in trained(options)]
    measured = [c for c in measured if c[3]['default_hooks.layer_metrics']]
    assert sorted(c[0] for c in measured) == ['AdamW', 'LARS', 'LION', 'SGD']
    assert {c[2] for c in measured} == {1}


def test_minutes_shorten_the_whole_schedule(options, fake):
    lines = []
    run(replace(options, minutes=8), fake, lines)
    lengths = {json.loads(k)[3]['train_cfg.max_iters'] for k in trained(options)}
    # 8 minutes on two cores: 960 s for 44 runs, less 2 s each, at 0.1 s an iteration
    (n,) = lengths
    assert 180 <= n <= 198
    ends = {json.loads(k)[3]['param_scheduler'][1]['end'] for k in trained(options)}
    assert ends == lengths
    assert f'44 runs of {n} iterations' in lines[0]
    several = replace(options, minutes=8, lengths=(1.0, 2.0))
    _, status = run(several, fake, lines)  # goes on at the length it had
    assert status == 0 and len(fake.looked) == 1
    assert any(f'goes on with its schedule, {n} iterations' in line for line in lines)
    lengths = {json.loads(k)[3]['train_cfg.max_iters'] for k in trained(options)}
    assert lengths == {n, 2 * n}


def test_a_budget_too_small_for_the_runs_is_refused(options, fake):
    with pytest.raises(UserError, match=r'--minutes 1: too few for 44 runs; at least \d+ are'):
        run(replace(options, minutes=1), fake)
    assert not Path(options.out).exists()


def test_a_dry_run_leaves_nothing(options, fake):
    lines = []
    assert run(replace(options, dry_run=True), fake, lines) == ({}, 0)
    assert not Path(options.out).exists() and '44 runs' in lines[0]
    assert any('AdamW: rates 6.25e-05' in line for line in lines)


def test_where_all_diverge_the_smallest_rate_is_said_and_the_status(options, fake):
    fake.respond = staticmethod(lambda trial: -math.inf)
    lines = []
    _, status = run(options, fake, lines)
    assert status == 3
    assert any('SGD down to 6.10352e-06' in line for line in lines)


def test_where_all_fail_the_reason_is_said(options, fake):
    fake.respond, fake.kind = staticmethod(lambda trial: math.nan), 'config error'
    with pytest.raises(UserError, match='failed .config error: out of luck.'):
        run(options, fake)


def test_a_probe_of_another_protocol_is_refused(options, fake):
    run(options, fake)
    file = Path(options.out, 'protocol.json')
    data = json.loads(file.read_text())
    data['protocol']['version'] = plan.PROTOCOL + 1
    file.write_text(json.dumps(data))
    with pytest.raises(UserError, match='protocol version 2, this release runs 1'):
        run(options, fake)


@pytest.mark.parametrize('part', ['look', 'identity', 'lengths', 'seconds', 'text', 'depth'])
def test_a_damaged_protocol_is_refused(part, options, fake):
    run(options, fake)
    file = Path(options.out, 'protocol.json')
    data = json.loads(file.read_text())
    data.pop(part, None)
    data['protocol'].pop(part, None)
    if part == 'seconds':
        data['look']['seconds_per_iteration'] = 'x'
    text = json.dumps(data)
    file.write_text({'text': text[:-9], 'depth': '[' * 99_999}.get(part, text))
    with pytest.raises(UserError, match=r'protocol.json cannot be read .*; give another --out'):
        run(options, fake)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'optimizers': ('SGD', 'AdamW')}, 'the optimizers or their rates'),
        ({'optimizers': ('SGD:0.3', 'LARS', 'AdamW', 'LION')}, 'the optimizers or their rates'),
        ({'iterations': 100}, 'the config'),
        ({'first_seed': 9}, '--first-seed'),
        ({'lengths': (2.0,)}, 'the first of --lengths'),
    ],
)
def test_another_probe_in_the_same_folder_is_refused(options, fake, change, message):
    run(options, fake)
    with pytest.raises(UserError, match=message):
        run(replace(options, **change), fake)


def test_references_are_shown_where_they_compare(options, fake, tmp_path):
    run(options, fake)
    other = replace(options, out=str(tmp_path / 'b'), backbone='CNX-XS', references=(options.out,))
    result, _ = run(other, fake)
    assert [r['backbone'] for r in result['references']] == ['R-18-XS']
    shorter = replace(other, out=str(tmp_path / 'c'), iterations=100)
    assert run(shorter, fake)[0]['references'] == []
    with pytest.raises(UserError, match=r'probe.json: cannot be read \(No such file'):
        run(replace(options, references=(str(tmp_path),)), fake)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'config': 'a.py'}, 'a CONFIG, or --backbone NAME'),
        ({'backbone': None, 'data': None}, 'a CONFIG, or --backbone NAME'),
        ({'optimizers': ('SGDD',)}, "unknown optimizer 'SGDD'"),
        ({'optimizers': ('SGD', 'sgd')}, 'SGD is there twice'),
        ({'optimizers': ('timm.adopd',)}, "unknown timm optimizer 'adopd'; did you mean"),
        ({'seeds': 0}, '--seeds 0'),
        ({'minutes': -1}, '--minutes -1'),
        ({'lengths': (0.0,)}, '--lengths'),
        ({'imports': ('no_such_module',)}, '--import no_such_module'),
        ({'data': '/nowhere'}, '--data /nowhere: no such folder'),
        ({'address': 'auto', 'gpus': ('0',)}, '--gpus: not with --address'),
        ({'address': 'auto', 'minutes': 9}, '--minutes: not with --address'),
        ({'gpus': ('0',)}, '--jobs: trainings on the CPU'),
        ({'pretrained': 'weights.pth'}, '--pretrained: goes with a CONFIG'),
        ({'config': 'a.py', 'backbone': None}, '--data: goes with --backbone'),
        ({'config': 'a.py', 'backbone': None, 'data': None, 'iterations': 100}, '--iterations: goes'),
        ({'config': 'a.py', 'backbone': None, 'data': None, 'batch': 8}, '--batch: goes'),
    ],
)  # fmt: skip
def test_mistakes_are_said_before_anything_is_written(options, fake, change, message):
    with pytest.raises(UserError, match=message):
        run(replace(options, **change), fake)
    assert not Path(options.out).exists() and not fake.looked


def test_a_metric_that_is_not_in_points_needs_a_margin(options, fake, monkeypatch):
    from bocb_mm.probe import run as running

    found = running.find_target(options)
    monkeypatch.setattr(running, 'find_target', lambda _: replace(found, metric='abs_rel'))
    with pytest.raises(UserError, match='--margin: abs_rel is not in points'):
        run(options, fake)
    fake.metric, fake.larger_is_better = 'abs_rel', False
    fake.respond = staticmethod(lambda trial: 1 - hill(trial) / 100)
    result, _ = run(replace(options, margin=0.01), fake)
    assert result['subject']['unit'] == '' and result['gap']['verdict'] == 'adaptive'


def test_a_config_without_a_validation_metric_is_refused(tmp_path, fake):
    config = tmp_path / 'c.py'
    config.write_text(
        "default_scope = 'mmpretrain'\nmodel = dict(type='A', backbone=dict(type='R'))\n"
        'train_cfg = dict(max_epochs=2)\nval_dataloader = dict(batch_size=1)\n'
    )
    with pytest.raises(UserError, match='has no val_evaluator'):
        run(Options(out=str(tmp_path / 'out'), config=str(config)), fake)


def test_starts_of_optimizers():
    assert starts_of(['SGD:0.3', 'AdamW:0.002:0.1'], 'classification', None) == {
        'SGD': (0.3, 1e-4),
        'AdamW': (0.002, 0.1),
    }
    assert starts_of(['timm.adopt:0.003'], 'detection', None)['timm.adopt'][0] == 0.003
    assert starts_of(['timm.adopt'], 'detection', None)['timm.adopt'][0] > 0
    assert starts_of(['AdamW:0.00123456789'], 'detection', None)['AdamW'][0] == 0.00123457
    for text in ('SGD:x', 'SGD:0', 'SGD:1:2:3', 'SGD:-1'):
        with pytest.raises(UserError, match='NAME, NAME:LR'):
            starts_of([text], 'classification', None)
