"""What the tests of the optimizers share."""

import pytest
import torch


@pytest.fixture
def compilations(monkeypatch):
    """``torch.compile`` without code generation; counts the graphs that it makes."""
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    compile = torch.compile

    monkeypatch.setattr(torch, 'compile', lambda f, **_: compile(f, backend=counter))
    torch._dynamo.reset()
    yield counter
    torch._dynamo.reset()
