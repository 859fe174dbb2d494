"""Does a probe say what a study says? On results that are made up."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bocb_mm.report import gap, validation
from bocb_mm.report.gap import Interval
from bocb_mm.report.probed import FRESH, TUNING, Run, Subject, analyse

PROBE = ('SGD', 'LARS', 'AdamW', 'LION')
ADAPTIVE, FIXED = ('LAMB', 'Adan', 'AdaBelief', 'AdamP'), ('SGDP', 'AdaBound', 'AdaDelta')
SUBJECT = Subject('Net', 'classification', 'cifar10', 'accuracy/top1', '200 of 50', 1, floor=10.0)


def made(heights, rng, sd=0.5, seeds=4, rate=1.0):
    """A whole probe: three rates, the middle one the best, and fresh seeds there."""
    runs = []
    for name, height in heights.items():
        for k in (-1, 0, 1):
            value = height - 5 * abs(k) + rng.normal(0, sd)
            runs.append(Run(name, rate * 4.0**k, 0.0, 0, TUNING, value))
        for seed in range(1, seeds + 1):
            runs.append(Run(name, rate, 0.0, seed, FRESH, height + rng.normal(0, sd)))
    found = analyse(SUBJECT, runs, dict.fromkeys(heights, rate), 3.0)
    return {**found, 'cost': {'runs': len(runs)}}


def study_of(true_gap, rng, **other):
    """A study whose adaptive optimizers are all ``true_gap`` points above the others."""
    heights = dict.fromkeys(FIXED, 40.0) | dict.fromkeys(ADAPTIVE, 40.0 + true_gap)
    return made({**heights, **other}, rng)


def probe_of(true_gap, rng):
    high = 40.0 + true_gap
    return made({'SGD': 40.0, 'LARS': 39.0, 'AdamW': high, 'LION': high - 1}, rng)


PAIRS = st.lists(
    st.tuples(st.integers(-5, 5).map(float), st.integers(-5, 5).map(float)), min_size=4, max_size=12
)


@settings(deadline=None, max_examples=60)
@given(PAIRS)
def test_the_rank_correlation_is_spearmans(pairs):
    x, y = zip(*pairs)
    found = validation.rank_correlation(x, y, n=50)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(found.estimate) and math.isnan(found.low)
        return
    assert found.estimate == pytest.approx(scipy_stats.spearmanr(x, y).statistic, abs=1e-9)
    assert -1 <= found.low <= found.high <= 1
    turned = validation.rank_correlation(x, [-v for v in y], n=50)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-9)


def test_networks_that_have_nothing_to_do_with_each_other_give_an_interval_around_0():
    rng = np.random.default_rng(3)
    draws = [validation.rank_correlation(*rng.normal(size=(2, 8)), n=400) for _ in range(100)]
    assert sum(d.low <= 0 <= d.high for d in draws) >= 85  # percentiles of 8 pairs are a bit short
    assert np.mean([d.high - d.low for d in draws]) > 0.8


@pytest.mark.parametrize('n', [0, 1, 2, 3])
def test_few_networks_have_no_interval(n):
    found = validation.rank_correlation(range(n), range(n))
    assert math.isnan(found.low) and (n < 2) == math.isnan(found.estimate)


def test_a_pair_without_a_number_is_left_out():
    x, y = [1.0, 2, 3, 4, 5, 6], [2.0, 1, 4, 3, 6, 5]
    with_gap = validation.rank_correlation([*x, math.nan], [*y, 9.0])
    assert with_gap == validation.rank_correlation(x, y)


def test_the_middle_of_a_group_stands_for_it():
    heights = {'LAMB': 41, 'Adan': 50, 'AdaBelief': 47, 'AdamP': 44}
    heights |= {'SGDP': 40, 'AdaBound': 49, 'AdaDelta': 20}
    study = made(heights, np.random.default_rng(0), sd=0.1)
    found = validation.gap_of_groups(study, ADAPTIVE, FIXED)
    assert (found.adaptive, found.fixed) == ('AdaBelief', 'SGDP')  # of four the better middle one
    assert found.gap.estimate == pytest.approx(7, abs=0.5) and found.verdict == gap.ADAPTIVE
    best = validation.gap_of_groups(study, ADAPTIVE, FIXED, 'best')
    assert (best.adaptive, best.fixed, best.verdict) == ('Adan', 'AdaBound', gap.NONE)


def test_what_has_chosen_is_not_compared():
    """A lucky tuning run changes who stands for a group, never the results that are compared."""
    study = study_of(5.0, np.random.default_rng(1))
    lucky = json.loads(json.dumps(study))
    row = next(r for r in lucky['optimizers'] if r['name'] == 'Adan')
    row['tuned'] = 99.0
    found = validation.gap_of_groups(lucky, ADAPTIVE, FIXED, 'best')
    assert found.adaptive == 'Adan' and found.gap.estimate == pytest.approx(5, abs=1)


def test_a_group_without_results_and_a_network_that_learns_nothing_are_undecided():
    study = study_of(9.0, np.random.default_rng(2))
    nobody = validation.gap_of_groups(study, ['Muon'], FIXED)
    assert nobody.verdict == gap.UNDECIDED and math.isnan(nobody.gap.estimate)
    unlearned = validation.gap_of_groups({**study, 'learned': False}, ADAPTIVE, FIXED)
    assert unlearned.verdict == gap.UNDECIDED and unlearned.gap.estimate > 7


VERDICT = st.sampled_from(sorted(gap.VERDICTS))


@given(st.lists(st.tuples(VERDICT, VERDICT)))
def test_every_pair_of_verdicts_is_counted_once(pairs):
    found = validation.agreement(pairs)
    assert found['same'] + found['different'] + found['undecided'] == len(pairs)
    assert found['opposite'] <= found['different']
    assert found == validation.agreement([(b, a) for a, b in pairs])


def test_intervals_allow_what_chance_does():
    assert validation.compatible(Interval(0, -1, 1), Interval(1.4, 0.4, 2.4)) is True
    assert validation.compatible(Interval(0, -1, 1), Interval(1.5, 0.5, 2.5)) is False
    assert validation.compatible(Interval(0), Interval(0, -1, 1)) is None


def test_choices_are_compared_by_optimizer_and_rate():
    rng = np.random.default_rng(4)
    heights = {'SGD': 40.0, 'AdamW': 50.0}
    one, twice, far = (made(heights, rng, rate=r) for r in (0.1, 0.2, 0.5))
    assert validation.same_choice(one, twice) == {'optimizer': True, 'rates': 1.0}
    assert validation.same_choice(one, far)['rates'] == 0.0
    other = made({'SGD': 60.0, 'AdamW': 50.0}, rng, rate=0.1)
    assert validation.same_choice(one, other) == {'optimizer': False, 'rates': 1.0}


GAPS = (-6.0, -4.0, 0.0, 0.5, 4.0, 6.0, 8.0, 10.0)


def summed(truths, parts=('probe', 'again', 'study')):
    rng = np.random.default_rng(5)
    networks = {}
    for k, true_gap in enumerate(truths):
        every = {
            'probe': probe_of(GAPS[k], rng), 'again': probe_of(GAPS[k], rng),
            'study': study_of(true_gap, rng),
        }  # fmt: skip
        networks[f'net{k}'] = {p: every[p] for p in parts}
    spent = {(n, p): 60.0 for n, found in networks.items() for p in found}
    whole = validation.summary(networks, ADAPTIVE, FIXED, spent)
    return json.loads(json.dumps(whole, allow_nan=False))


def test_a_study_that_finds_the_same_agrees():
    whole = summed(GAPS)
    against = whole['against']['study']
    assert against['networks'] == 8 and against['opposite'] == against['different'] == 0
    assert against['same'] >= 6 and against['compatible'] >= 6
    assert against['spearman'][0] > 0.9 and against['spearman'][1] > 0.5
    assert whole['against']['again']['spearman'][0] > 0.9
    assert whole['cost']['probe'] == {
        'networks': 8, 'runs': 28.0, 'cpu_minutes': 1.0, 'cpu_seconds_a_run': 60 / 28,
    }  # fmt: skip


def test_a_study_that_finds_the_contrary_is_not_hidden():
    against = summed([-g for g in GAPS])['against']['study']
    assert against['spearman'][2] < 0 and against['opposite'] >= 4 and against['same'] <= 2


def test_what_is_not_run_yet_is_left_out():
    whole = summed(GAPS[:2], parts=('probe',))
    assert whole['against'] == {} and whole['choices'] == []
    assert whole['cost']['study'] == {'networks': 0}
    assert set(whole['findings']['net0']) == {'probe'}
    whole = summed(GAPS[:2], parts=('study', 'again'))
    assert whole['against'] == {} and whole['choices'] == []
