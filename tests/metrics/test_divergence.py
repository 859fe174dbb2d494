"""The rule by which a loss has diverged."""

import math

import pytest
import torch

from bocb_mm.metrics.divergence import LossWatch, all_finite


def first_bad(losses, **settings):
    """Iteration at which the rule finds the losses diverged, or None."""
    watch = LossWatch(**settings)
    for iteration, loss in enumerate(losses, start=1):
        watch.add(torch.tensor(float(loss)), iteration)
    first = -float(watch.verdict()[1])
    return None if math.isinf(first) else int(first)


WATCHED = {
    'falls': ([7 / (1 + t / 50) for t in range(400)], None),
    'noisy': ([3 + (-1) ** t for t in range(400)], None),
    'one spike': ([2.0] * 200 + [60.0] + [2.0] * 100, None),
    'negative': ([5 - t / 10 for t in range(400)], None),
    'negative and through zero': ([1 - t / 100 for t in range(300)], None),
    'NaN': ([2.0] * 30 + [float('nan')] + [2.0] * 100, 31),
    'infinite': ([2.0] * 150 + [float('inf')] * 9, 151),
    'NaN at once': ([float('nan')] * 5, 1),
    'minus infinite': ([1.0] * 7 + [float('-inf')], 8),
}


@pytest.mark.parametrize('case', WATCHED)
def test_the_rule(case):
    losses, expected = WATCHED[case]
    assert first_bad(losses) == expected


def test_a_blow_up_is_found_when_the_smoothed_loss_passes_the_bound():
    # b = s_w = 1 and f = 10: diverged when s > 11. s after n losses of 101 is 101 - 100 * 0.95^n,
    # which passes 11 at n = 3 (15.3; 10.75 at n = 2).
    assert first_bad([1.0] * 200 + [101.0] * 50) == 203


def test_no_loss_is_no_verdict():
    assert LossWatch().verdict() is None


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_one_parameter_that_is_not_finite_is_found(value, dtype):
    parameters = [torch.ones(3, dtype=dtype), torch.zeros(2, 2, dtype=dtype)]
    assert all_finite([]) and all_finite([*parameters, torch.tensor([2])])
    parameters[1][0, 1] = value
    assert not all_finite(parameters)
