"""Sums and means over rows and columns of many tensors at once, against those of each."""

import torch

from bocb_mm.optimizers.adafactor import FactorSpace
from bocb_mm.optimizers.rows import RowSpace

SHAPES = [(3, 4), (2, 5, 3, 3), (7, 2), (1, 6), (4, 1)]


def tensors(shapes):
    torch.manual_seed(0)
    return [torch.randn(s, dtype=torch.float64) for s in shapes]


def test_rows_of_every_tensor():
    given = tensors([*SHAPES, (5,), ()])  # the last two are one row each
    space = RowSpace(given)
    assert len(space.parts) == 2
    for how in ('sum', 'mean'):
        for part in space.parts:
            torch._foreach_copy_(part.work, part.of(given))
            part.reduce_rows(how, out=part.own_rows(space.row_factor))
        for numbers, views, t in zip(space.row_numbers, space.row_views, given):
            rows = t.reshape(t.shape[0] if t.dim() > 1 else 1, -1)
            torch.testing.assert_close(numbers, getattr(rows, how)(1))
            torch.testing.assert_close((t * 0 + views).reshape(rows.shape)[:, 0], numbers)


def test_factors_are_those_of_each_tensor():
    grads = tensors(SHAPES)
    state = {
        'row': [torch.rand(g.shape[0], dtype=torch.float64) for g in grads],
        'col': [torch.rand(g[0].numel(), dtype=torch.float64) for g in grads],
    }
    before = {key: [t.clone() for t in moments] for key, moments in state.items()}
    space = FactorSpace(grads)
    space.write_factors(grads, state, new=0.25, eps=1e-3)
    for k, g in enumerate(grads):
        squared = g.flatten(1).square() + 1e-3
        row = 0.75 * before['row'][k] + 0.25 * squared.mean(1)
        col = 0.75 * before['col'][k] + 0.25 * squared.mean(0)
        torch.testing.assert_close(state['row'][k], row)
        torch.testing.assert_close(state['col'][k], col)
        update = g * space.row_views[k] * space.column_views[k]
        expected = g.flatten(1) / (torch.outer(row, col) / row.mean()).sqrt()
        torch.testing.assert_close(update.flatten(1), expected)


def test_memory_is_given_back_between_steps():
    given = tensors([(4, 6)] * 6)
    space = RowSpace(given)
    half = space.parts[0].flat.untyped_storage()
    assert half.nbytes() == sum(t.nbytes for t in given) / 2
    space.release()
    assert half.nbytes() == 0
    space.borrow()
    torch._foreach_copy_(space.parts[1].work, space.parts[1].of(given))
    torch.testing.assert_close(space.parts[1].work, space.parts[1].of(given))
