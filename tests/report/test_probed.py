"""From the runs of a probe to its answer."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from bocb_mm.errors import UserError
from bocb_mm.report import probed
from bocb_mm.report.probed import FRESH, LONGER, TUNING, Run, Subject, analyse

SUBJECT = Subject(
    'MyNet',
    'classification',
    'cifar10',
    'accuracy/top1',
    '400 iterations at batch 100',
    1,
    floor=10.0,
)
DEFAULTS = {'SGD': 0.1, 'LARS': 1.0, 'AdamW': 1e-3, 'LION': 2e-4}


def runs(heights, best=None, sd=0.3, seeds=4, longer=None, rng=None):
    """A whole probe: hills around the default (or 4**best times it), fresh seeds at the top."""
    rng = rng or np.random.default_rng(0)
    found = []
    for name, height in heights.items():
        power = (best or {}).get(name, 0)
        for k in range(-2, 3):
            value = height - 4.0 * (k - power) ** 2 if math.isfinite(height) else height
            found.append(Run(name, DEFAULTS[name] * 4.0**k, 0.05, 0, TUNING, value))
        if math.isfinite(height):
            for seed in range(1, seeds + 1):
                lr = DEFAULTS[name] * 4.0**power
                found.append(Run(name, lr, 0.05, seed, FRESH, height + rng.normal(0, sd)))
                if longer:
                    value = height + longer.get(name, 0) + rng.normal(0, sd)
                    found.append(Run(name, lr, 0.05, seed, LONGER, value, length=2.0))
    return found


def verdict(heights, **kwargs):
    return analyse(SUBJECT, runs(heights, **kwargs), DEFAULTS, 3.0)


def test_a_network_that_only_adaptive_rates_train():
    found = verdict({'SGD': 40, 'LARS': 38, 'AdamW': 47, 'LION': 46})
    assert found['gap']['verdict'] == 'adaptive'
    assert (found['gap']['adaptive'], found['gap']['fixed']) == ('AdamW', 'SGD')
    coupled, rate, train = found['sentences']
    assert 'After 400 iterations at batch 100, MyNet is coupled to adaptive rates' in coupled
    assert 'not the rate' in rate
    assert train.startswith('Train with AdamW, learning rate 0.001, weight decay 0.05')
    assert found['range']['behind'] is True


def test_a_network_that_only_fixed_rates_train():
    assert verdict({'SGD': 47, 'LARS': 46, 'AdamW': 40, 'LION': 38})['gap']['verdict'] == 'fixed'


def test_a_network_that_any_of_them_trains():
    found = verdict({'SGD': 47.5, 'LARS': 47.2, 'AdamW': 47.6, 'LION': 47.0})
    assert found['gap']['verdict'] == 'none' and found['range']['behind'] is False
    assert 'not coupled, at this budget' in found['sentences'][0]


def test_where_the_interval_crosses_the_margin_it_says_how_many_seeds_decide():
    found = verdict({'SGD': 43.5, 'LARS': 40, 'AdamW': 47.5, 'LION': 40}, sd=1.2)
    assert found['gap']['verdict'] == 'undecided'
    n = found['gap']['seeds_to_decide']
    assert n is None or n > 4
    assert 'undecided' in found['sentences'][0]


def test_one_seed_gives_no_verdict():
    found = verdict({'SGD': 10, 'LARS': 10, 'AdamW': 90, 'LION': 90}, seeds=1)
    assert found['gap']['verdict'] == 'undecided'
    assert 'one seed decides nothing' in found['sentences'][0]


def test_one_seed_does_not_show_that_the_rate_does_not_matter():
    heights = {'SGD': 40, 'LARS': 38, 'AdamW': 47, 'LION': 46}
    found = verdict(heights, seeds=1, best={'SGD': 1})
    assert 'SGD might' in found['sentences'][1]


def test_equal_results_of_the_best_are_no_reason_to_doubt_that_it_learned():
    trained = [r for r in runs({'SGD': 40, 'AdamW': 100}) if r.stage == FRESH]
    same = [replace(r, value=100.0) if r.optimizer == 'AdamW' else r for r in trained]
    others = [r for r in runs({'SGD': 40, 'AdamW': 100}) if r.stage != FRESH]
    found = analyse(SUBJECT, [*others, *same], DEFAULTS, 3.0)
    assert found['learned'] and found['gap']['verdict'] == 'adaptive'
    nothing = [replace(r, value=SUBJECT.floor) for r in [*others, *same]]
    assert not analyse(SUBJECT, nothing, DEFAULTS, 3.0)['learned']


def test_only_fresh_seeds_are_reported():
    """A tuning run that was lucky must not enter the gap or what is expected."""
    every = runs({'SGD': 45, 'LARS': 40, 'AdamW': 45, 'LION': 40})
    lucky = [
        replace(r, value=99.0)
        if r.optimizer == 'AdamW' and r.stage == TUNING and r.lr == 1e-3
        else r
        for r in every
    ]
    one, other = (analyse(SUBJECT, r, DEFAULTS, 3.0) for r in (every, lucky))
    assert one['gap']['interval'] == other['gap']['interval']
    assert other['best']['expected'][0] < 50


def test_it_was_the_rate():
    found = verdict({'SGD': 47, 'LARS': 46, 'AdamW': 47, 'LION': 46.5}, best={'SGD': -2})
    assert found['gap']['verdict'] == 'none'
    assert 'The rate matters: SGD loses' in found['sentences'][1]
    assert 'at its default 0.1 against 0.00625' in found['sentences'][1]


def test_of_many_optimizers_the_costliest_defaults_are_named():
    names = ['SGD', 'LARS', 'AdamW', 'LION', 'Adam', 'NAdam', 'RAdam', 'LAMB']
    defaults = dict.fromkeys(names, 0.1)
    every = [
        replace(r, optimizer=name, lr=r.lr)
        for k, name in enumerate(names)
        for r in runs({'SGD': 40 + k}, best={'SGD': 2})
    ]
    text = analyse(SUBJECT, every, defaults, 3.0)['sentences'][1]
    assert text.count(' loses ') == 5 and text.endswith(
        '; 3 more lose at least 3 points, or diverge.'
    )


def test_a_default_that_diverges_is_said():
    every = runs({'SGD': 47, 'LARS': 46, 'AdamW': 47, 'LION': 46.5}, best={'SGD': -2})
    every = [
        replace(r, value=-math.inf) if r.optimizer == 'SGD' and r.lr >= 0.1 else r for r in every
    ]
    found = analyse(SUBJECT, every, DEFAULTS, 3.0)
    assert 'SGD diverges at its default 0.1 and trains at 0.00625' in found['sentences'][1]
    assert found['optimizers'][0]['diverged_share'] == pytest.approx(3 / 9)


def test_where_all_diverge_the_smallest_rate_is_said():
    found = verdict(dict.fromkeys(DEFAULTS, -math.inf))
    assert found['gap']['verdict'] == 'undecided' and found['best'] is None
    assert 'all 20 runs diverged' in found['sentences'][0]
    assert 'SGD down to 0.00625' in found['sentences'][0]


def test_a_family_of_which_all_diverged_gives_no_verdict():
    found = verdict({'SGD': -math.inf, 'LARS': -math.inf, 'AdamW': 47, 'LION': 46})
    assert found['gap']['verdict'] == 'undecided'
    assert 'no optimizer of a fixed rate has a confirmed result' in found['sentences'][0]
    assert found['best']['name'] in ('AdamW', 'LION')


def test_a_fresh_run_that_diverged_counts_as_the_worst_result():
    every = runs({'SGD': 45, 'LARS': 40, 'AdamW': 45, 'LION': 40})
    worst = min(r.value for r in every)
    every = [
        replace(r, value=-math.inf) if (r.optimizer, r.seed) == ('SGD', 2) else r for r in every
    ]
    found = analyse(SUBJECT, every, DEFAULTS, 3.0)
    assert worst in found['optimizers'][0]['fresh']
    assert 'SGD diverged on 1 of 4' in found['sentences'][0]


def test_a_fresh_run_that_crashed_does_not_count():
    every = [
        replace(r, value=math.nan) if (r.optimizer, r.seed) == ('AdamW', 2) else r
        for r in runs({'SGD': 40, 'AdamW': 47})
    ]
    found = analyse(SUBJECT, every, DEFAULTS, 3.0)
    assert found['gap']['verdict'] == 'adaptive' and found['gap']['seeds'] == 3
    assert '(95 % interval, 3 fresh seeds of one, 4 of the other)' in found['sentences'][0]
    crashed = [
        replace(r, value=math.nan) if r.optimizer == 'SGD' and r.stage == FRESH else r
        for r in every
    ]
    assert (
        'no optimizer of a fixed rate' in analyse(SUBJECT, crashed, DEFAULTS, 3.0)['sentences'][0]
    )


def test_one_seed_of_one_side_gives_no_verdict():
    every = [r for r in runs({'SGD': 40, 'AdamW': 60}) if r.optimizer != 'SGD' or r.seed in (0, 1)]
    found = analyse(SUBJECT, every, DEFAULTS, 3.0)
    assert found['gap']['verdict'] == 'undecided'
    assert 'one seed decides nothing: run the same command again' in found['sentences'][0]


def test_seeds_that_all_agree_are_said_to():
    every = [replace(r, value=float(round(r.value, -1))) for r in runs({'SGD': 40, 'AdamW': 60})]
    found = analyse(SUBJECT, every, DEFAULTS, 3.0)
    assert 'their spread is unknown' in found['sentences'][0]


def test_a_number_of_its_own_unit_keeps_its_digits():
    subject = replace(SUBJECT, metric='abs_rel', sign=-1.0, floor=-1.0, unit='')
    every = [
        replace(r, value=-0.5 + r.value / 100) for r in runs({'SGD': 40.2, 'AdamW': 45}, sd=0.05)
    ]
    found = analyse(subject, every, DEFAULTS, 0.01)
    assert found['gap']['verdict'] == 'adaptive'
    assert 'is +0.048 [+0.0' in found['sentences'][0] and 'points' not in ''.join(
        found['sentences']
    )
    assert 'abs_rel 0.050 [0.0' in found['sentences'][2]


def test_the_gap_at_twice_the_length():
    found = verdict({'SGD': 42, 'LARS': 40, 'AdamW': 47, 'LION': 40}, longer={'SGD': 2, 'AdamW': 8})
    (longer,) = found['lengths']
    assert longer['length'] == 2 and longer['verdict'] == 'adaptive'
    assert longer['growth'][0] == pytest.approx(6, abs=1) and longer['growth'][1] > 3


def test_an_error_is_shown_with_its_own_sign():
    subject = replace(SUBJECT, metric='NME', sign=-1.0, floor=-30.0)
    every = [
        replace(r, value=-(60 - r.value))
        for r in runs({'SGD': 50, 'LARS': 50, 'AdamW': 54, 'LION': 50})
    ]
    found = analyse(subject, every, DEFAULTS, 3.0)
    assert found['best']['name'] == 'AdamW'
    text = found['sentences'][2].partition('NME ')[2]
    assert text.startswith('6.')
    low, high = (float(v) for v in text.partition('[')[2].partition(']')[0].split(', '))
    assert low < 6.2 < high


def test_references_of_another_budget_are_left_out():
    some = runs({'SGD': 1, 'AdamW': 2})
    others = [
        analyse(replace(SUBJECT, **changes), some, DEFAULTS, 3.0)
        for changes in ({'backbone': 'A'}, {'backbone': 'B', 'budget': '9 epochs'}, {})
    ]
    found = analyse(SUBJECT, some, DEFAULTS, 3.0, references=others)
    assert [r['backbone'] for r in found['references']] == ['A']


def test_it_is_json_without_a_number_that_json_lacks():
    found = verdict({'SGD': -math.inf, 'LARS': 40, 'AdamW': 47, 'LION': 46})
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))


def test_where_nothing_was_learned_there_is_no_verdict():
    """Four optimizers that all guess are equal, and not for being uncoupled."""
    rng = np.random.default_rng(5)
    found = verdict(dict.fromkeys(DEFAULTS, 9.8), sd=0.2, rng=rng)
    assert found['gap']['interval'][2] < 3 and found['gap']['verdict'] == 'undecided'
    assert (
        'no optimizer is shown to learn more than guessing (accuracy/top1 10)'
        in found['sentences'][0]
    )


@pytest.mark.parametrize('n', [0, 3, 12])
def test_an_unfinished_probe_says_so(n):
    every = runs({'SGD': 47, 'LARS': 46, 'AdamW': 47, 'LION': 46})
    found = analyse(SUBJECT, every[:n], DEFAULTS, 3.0)
    assert len(found['sentences']) == 3 and found['gap']['verdict'] == 'undecided'


@pytest.mark.parametrize('data', [[], {}, {'schema_version': 99}])
def test_a_file_of_another_version_is_refused(data, tmp_path):
    (tmp_path / 'probe.json').write_text(json.dumps(data))
    with pytest.raises(UserError, match='schema_version'):
        probed.read(tmp_path)
