"""The plan of a probe, run on simulated response curves."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bocb_mm.probe import plan
from bocb_mm.probe.plan import Protocol, Trial, next_trials

STARTS = {'SGD': (0.1, 1e-4), 'LARS': (1.0, 1e-4), 'AdamW': (1e-3, 0.05), 'LION': (2e-4, 0.25)}


def play(protocol, respond):
    """Run a probe to its end; returns the trials in the order they were asked for."""
    results, asked = {}, []
    for _ in range(1000):
        trials = next_trials(protocol, results)
        if not trials:
            return results, asked
        asked += trials
        results |= {t: respond(t) for t in trials}
    raise AssertionError('the probe does not end')


def hill(best, height=80.0, width=3.0):
    """A response curve with its best rate at 2**best times the default."""
    return lambda t: height - (t.power - best) ** 2 / width + 0.01 * t.seed


def test_without_extensions_it_takes_44_runs():
    results, asked = play(Protocol(STARTS), hill(0.4))
    assert len(asked) == 44 == Protocol(STARTS).least_runs
    fresh = [t for t in results if plan.stage(Protocol(STARTS), t) == 'fresh']
    assert len(fresh) == 16 and {t.seed for t in fresh} == {1, 2, 3, 4}
    assert {t.power for t in fresh} == {0}


def test_fresh_seeds_confirm_the_neighbour_where_it_is_better():
    results, _ = play(Protocol({'SGD': (0.1, 1e-4)}), hill(0.9))
    assert {t.power for t in results if t.seed > 0} == {1}


@pytest.mark.parametrize('best', [-9, 9])
def test_the_rates_go_on_until_the_best_is_interior(best):
    protocol = Protocol({'SGD': (0.1, 1e-4)})
    results, _ = play(protocol, hill(best))
    grid = [p for p in plan.tuned(protocol, results, 'SGD') if p % 2 == 0]
    assert min(grid) < plan.best_power(plan.tuned(protocol, results, 'SGD')) < max(grid)
    assert {t.power for t in results if t.seed > 0} == {best}


def test_a_rate_that_diverges_ends_the_extension():
    protocol = Protocol({'SGD': (0.1, 1e-4)})
    results, _ = play(protocol, lambda t: -math.inf if t.power > 4 else 50.0 + t.power)
    assert max(t.power for t in results) == 6
    assert {t.power for t in results if t.seed > 0} == {4}


def test_where_all_diverge_smaller_rates_are_tried_and_nothing_is_confirmed():
    protocol = Protocol(STARTS)
    results, _ = play(protocol, lambda t: -math.inf)
    assert all(t.seed == 0 for t in results)
    assert min(t.power for t in results) == -4 - 2 * plan.EXTENSIONS
    assert plan.best_power(plan.tuned(protocol, results, 'SGD')) is None


def test_equal_results_keep_the_default():
    results, asked = play(Protocol({'SGD': (0.1, 1e-4)}), lambda t: 0.0)
    assert len(asked) == 11 and {t.power for t in results if t.seed > 0} == {0}


def test_lengths_repeat_the_confirmed_settings():
    protocol = Protocol(STARTS, lengths=(1.0, 2.0))
    results, asked = play(protocol, hill(0))
    assert len(asked) == protocol.least_runs == 60
    longer = [t for t in results if t.length == 2]
    assert len(longer) == 16 and all(plan.stage(protocol, t) == 'longer' for t in longer)


def test_other_seeds_are_other_runs():
    one, two = Protocol(STARTS), Protocol(STARTS, first_seed=10)
    assert not set(play(one, hill(0))[1]) & set(play(two, hill(0))[1])


def test_rates_are_the_catalogs_times_powers_of_two():
    protocol = Protocol({'AdamW': (1e-3, 0.05)})
    assert protocol.rate(Trial('AdamW', 3, 0)) == 0.008
    assert protocol.rate(Trial('AdamW', -2, 0)) == 0.00025


VALUES = st.one_of(st.floats(0, 100), st.just(-math.inf), st.just(math.nan))


@settings(deadline=None, max_examples=200)
@given(
    st.dictionaries(st.tuples(st.sampled_from(sorted(STARTS)), st.integers(-20, 20)), VALUES),
    st.integers(1, 6),
    st.randoms(),
)
def test_any_curve_ends_and_never_asks_twice(curve, seeds, random):
    """Whatever comes out, in whatever order runs end: no run twice, an end, a bound."""
    protocol = Protocol(STARTS, seeds=seeds)
    results, open_trials, ever = {}, set(), set()
    for _ in range(2000):
        wanted = next_trials(protocol, results)
        assert len(set(wanted)) == len(wanted) and not set(wanted) & results.keys()
        assert open_trials <= set(wanted)  # what runs stays wanted
        ever |= set(wanted)
        open_trials |= set(wanted)
        if not open_trials:
            break
        one = random.choice(sorted(open_trials))
        open_trials.remove(one)
        results[one] = curve.get((one.optimizer, one.power), 50.0 - abs(one.power))
    else:
        raise AssertionError('the probe does not end')
    assert ever == results.keys()
    # Up or down, never both: the best cannot lie on both ends... but all failing goes down first.
    assert len(results) <= protocol.least_runs + 2 * plan.EXTENSIONS * len(STARTS)
    rates = [(t.optimizer, protocol.rate(t), t.seed) for t in results]
    assert len(set(rates)) == len(rates)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 60), st.integers(-8, 8))
def test_a_killed_probe_goes_on_as_if_nothing_had_been(kept, best):
    protocol = Protocol(STARTS)
    whole, asked = play(protocol, hill(best))
    some = {t: whole[t] for t in asked[:kept]}
    while trials := next_trials(protocol, some):
        assert set(trials) <= whole.keys()
        some |= {t: whole[t] for t in trials}
    assert some == whole
