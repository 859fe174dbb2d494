"""The examples in docstrings are true."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'bocb_mm'
WITH_EXAMPLES = [
    '.'.join(('bocb_mm', *path.relative_to(PACKAGE).with_suffix('').parts)).removesuffix(
        '.__init__'
    )
    for path in sorted(PACKAGE.rglob('*.py'))
    if re.search(r'>>> (?!.*\+SKIP)', path.read_text(encoding='utf-8'))
]


@pytest.mark.parametrize('name', WITH_EXAMPLES)
def test_the_examples_of_a_module(name):
    module = importlib.import_module(name)
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS)  # failures are printed
    assert not found.failed


def test_the_docs_show_a_whole_optimizer_as_it_is():
    shown = (PACKAGE.parent / 'docs' / 'development.md').read_text(encoding='utf-8')
    assert (PACKAGE / 'optimizers' / 'lion.py').read_text(encoding='utf-8') in shown
