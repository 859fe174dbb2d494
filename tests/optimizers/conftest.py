"""What the tests of the optimizers share."""

import pytest
import torch


@pytest.fixture
def compilations(monkeypatch):
    """``torch.compile`` without code generation; counts the graphs that it makes."""
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    compile = torch.compile

    def counting(f, options=None, **_):
        kept = {k: v for k, v in (options or {}).items() if k == 'guard_filter_fn'}
        return compile(f, backend=counter, options=kept)

    monkeypatch.setattr(torch, 'compile', counting)
    torch._dynamo.reset()
    yield counter
    torch._dynamo.reset()
