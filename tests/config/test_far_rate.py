"""A rate that is another optimizer's is said before hours are spent."""

import pytest

from bocb_mm.config.rates import far_from_default


def cfg(kind, lr, scope='mmpretrain'):
    return {'default_scope': scope, 'optim_wrapper': {'optimizer': {'type': kind, 'lr': lr}}}


@pytest.mark.parametrize(
    ('config', 'batch', 'said'),
    [
        (cfg('bocb_mm.AdamW', 0.1), None, '100 times'),
        (cfg('Adam', 0.07), 128, "times the catalog's default"),
        (cfg('SGD', 1e-4), None, 'one 1e+03th of'),
        (cfg('bocb_mm.AdamW', 0.01, 'mmdet'), 16, '100 times'),
        (cfg('bocb_mm.AdamW', 0.02), None, ''),
        (cfg('SGD', 0.1), 4, ''),  # not scaled to the batch: unusual, and no mistake of optimizer
        (cfg('SGD', 0.1 / 32), 4, ''),  # scaled to the batch
        (cfg('mine.Optimizer', 1e9), None, ''),
        ({}, None, ''),
        (cfg('SGD', None), None, ''),
    ],
)  # fmt: skip
def test_a_rate_far_from_the_default_is_said(config, batch, said):
    text = far_from_default(config, batch)
    assert (said in text and 'WARNING' in text) if said else text == ''
