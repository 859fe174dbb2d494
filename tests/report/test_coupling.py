"""Coupling, intervals, profiles and tuning ease: known answers and calibration."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from bocb_mm.report import build, coupling, load, paper, stats, summary, tables


def additive(rows=8, columns=6, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    grid = rng.normal(size=(rows, 1)) + rng.normal(size=columns) * 3
    values = grid + noise * rng.normal(size=(rows, columns))
    return pd.DataFrame(values, [f'o{i}' for i in range(rows)], [f'b{j}' for j in range(columns)])


def test_no_interaction_is_share_zero():
    found = coupling.coupling(additive())
    assert found.share == pytest.approx(0, abs=1e-12)
    assert found.columns['share'].max() == pytest.approx(0, abs=1e-9)


def test_share_by_hand():
    # The additive fit leaves +-1 everywhere and no effect of rows: all is interaction.
    values = pd.DataFrame({'a': [1.0, -1, 1, -1], 'b': [-1.0, 1, -1, 1], 'c': [0.0, 0, 0, 0]})
    assert coupling.coupling(values).share == pytest.approx(1)


def test_a_coupled_backbone_is_found():
    values = additive(12, 8, noise=0.1)
    values.loc[['o1', 'o4', 'o7'], 'b3'] -= 5
    columns = coupling.coupling(values).columns
    assert columns['p_holm'].idxmin() == 'b3' and columns.at['b3', 'p_holm'] < 0.05
    assert columns['share'].idxmax() == 'b3'
    assert coupling.coupling(values).p_value < 0.01


@pytest.mark.parametrize('seeds', [1, 3])
def test_p_values_are_calibrated(seeds):
    """Without coupling, the table's p is below 0.1 in about a tenth of the tables."""
    low, n = 0, 80
    for seed in range(n):
        rng = np.random.default_rng(1000 + seed)
        truth = additive(6, 5, seed=seed)
        runs = truth.to_numpy()[..., None] + rng.normal(size=(*truth.shape, seeds))
        values = pd.DataFrame(runs.mean(-1), truth.index, truth.columns)
        single = {
            (o, b): runs[i, j].tolist()
            for i, o in enumerate(truth.index)
            for j, b in enumerate(truth.columns)
        }
        low += coupling.coupling(values, single, n_permutations=99).p_value <= 0.1
    assert 1 <= low <= 17  # binomial(80, 0.1): outside with probability 0.002


def test_order_changes_no_p_value():
    values = paper.read('table3_coco')
    mixed = values.sample(frac=1, random_state=1).sample(frac=1, random_state=2, axis=1)
    first, second = (coupling.coupling(v, n_permutations=199) for v in (values, mixed))
    assert first.share == pytest.approx(second.share) and first.p_value == second.p_value
    pd.testing.assert_frame_equal(first.columns, second.columns.loc[first.columns.index])


@pytest.mark.parametrize(
    'values',
    [
        pd.DataFrame({'a': [1.0, 2, 3]}),
        pd.DataFrame({'a': [1.0, 2], 'b': [1.0, 3], 'c': [1.0, 4]}),
        pd.DataFrame(np.nan, range(4), list('abc')),
        pd.DataFrame(75.0, range(4), list('abc')),
    ],
    ids=['one column', 'two optimizers', 'all missing', 'all equal'],
)
def test_too_little_gives_nan_not_an_error(values):
    found = coupling.coupling(values, n_permutations=9)
    assert math.isnan(found.share) and math.isnan(found.p_value)
    assert list(found.columns.index) == list(values.columns)


def test_missing_and_diverged_cells_are_allowed():
    values = additive(6, 5, noise=0.3)
    values.iat[0, 0], values.iat[1, 1] = np.nan, stats.DIVERGED
    found = coupling.coupling(values, n_permutations=99)
    assert 0 < found.share < 1 and 0 < found.p_value <= 1


# -- within a task, and without an optimizer -----------------------------------------------------


def of_task(prefix):
    return paper.read('table3_coco').filter(regex=f'^{prefix} ')


@pytest.mark.parametrize(
    ('prefix', 'share', 'p_value'),
    [('pose', 0.125, 0.229), ('det', 0.295, 0.008)],  # issue 18, B.1
)
def test_pose_and_detection_of_the_paper(prefix, share, p_value):
    found = coupling.coupling(of_task(prefix))
    assert found.share == pytest.approx(share, abs=0.001)
    assert found.p_value == pytest.approx(p_value, abs=0.01)
    assert not found.beyond_chance


def test_a_table_of_two_tasks_is_tested_task_by_task():
    table = load.paper_tables()[2]
    found = {c.group: c for c in build.couplings_of(table)}
    assert list(found) == ['pose', 'detection']
    for group, prefix in (('pose', 'pose'), ('detection', 'det')):
        alone = coupling.coupling(of_task(prefix))
        assert (found[group].share, found[group].p_value) == (alone.share, alone.p_value)
    frame = tables.coupling_frame(list(found.values()))
    assert list(frame.index[:1]) == ['(pose)'] and len(frame) == 11 + 2


def test_table_1_rests_on_two_rows():
    """Without AdaGrad and LARS, ConvNeXt stands out with p_holm 0.02 (issue 18, B.2)."""
    results = paper.read('table1_cifar100')
    found = coupling.coupling(results)
    assert not found.beyond_chance
    two = coupling.coupling(results.drop(index=['AdaGrad', 'LARS']))
    assert two.columns.at['CNX-T', 'p_holm'] == pytest.approx(0.02)
    found = coupling.sensitivity(found, results)
    assert found.left_out.at['AdaGrad and LARS', 'beyond_chance'] == 'CNX-T'
    assert found.left_out.loc['AdaGrad', 'share'] > 0.8 > 0.6 > found.left_out.loc['LARS', 'share']
    assert (found.left_out['n'] == 1).sum() == 20


def test_sensitivity_is_the_coupling_of_what_is_left():
    values = additive(6, 5, noise=0.5)
    values.loc['o2', 'b1'] -= 9
    whole = coupling.coupling(values, n_permutations=199)
    found = coupling.sensitivity(whole, values, n_permutations=199)
    each = {o: coupling.coupling(values.drop(index=o), n_permutations=199) for o in values.index}
    for optimizer, alone in each.items():
        assert found.left_out.at[optimizer, 'share'] == alone.share
        assert found.left_out.at[optimizer, 'p_value'] == alone.p_value
    low, high = found.p_range
    assert (low, high) == (
        min(c.p_value for c in each.values()),
        max(c.p_value for c in each.values()),
    )
    columns = pd.DataFrame({o: c.columns['p_value'] for o, c in each.items()})
    assert found.columns['p_low'].tolist() == columns.min(axis=1).tolist()
    assert found.columns['p_high'].tolist() == columns.max(axis=1).tolist()


def test_three_optimizers_have_no_sensitivity():
    values = additive(3, 4, noise=0.5)
    found = coupling.sensitivity(coupling.coupling(values, n_permutations=9), values)
    assert not len(found.left_out) and all(map(math.isnan, found.p_range))


def test_what_the_page_says_of_the_verdict():
    whole = coupling.coupling(additive(6, 5, noise=0.5), n_permutations=9)
    rows = pd.DataFrame(
        {'n': [1, 1, 2], 'share': 0.5, 'p_value': [0.1, 0.3, 0.9], 'beyond_chance': ['b1', '', 'b1; b2']},
        index=['SGD', 'LARS', 'SGD and LARS'],
    )  # fmt: skip
    words = summary.coupling_sentences(dataclasses.replace(whole, left_out=rows), False)
    assert '0.1 to 0.3 with each optimizer left out in turn' in words[0]
    assert words[2:] == [
        'Without SGD, b1 stands out.',
        'Without SGD and LARS, b1 and b2 stands out.',
    ]
