"""Every `bocb` command in the docs exists, with its options and the configs it names."""

import ast
import contextlib
import functools
import importlib
import io
import re
import shlex

import pytest

from bocb_mm import shipped
from bocb_mm.cli.main import commands
from tests.conftest import ROOT

PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
CONFIG_AT = {'train': 0, 'test': 0, 'dist': 0, 'slurm': 2}


def lines():
    """(page, words) of each command in a code block or in backticks."""
    for page in PAGES:
        text = page.read_text(encoding='utf-8').replace('\\\n', ' ')
        for command in re.findall(r'(?:^|`)(?:\S+=\S+ )*bocb ([a-z][^`\n]*)', text, re.MULTILINE):
            yield page.name, shlex.split(command, comments=True)


COMMANDS = list(lines())


@functools.cache
def help_of(name, *sub):
    """What a command prints for --help."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        importlib.import_module(commands()[name][0]).main([*sub, '--help'])
    return shown.getvalue()


def test_the_docs_show_how_to_call_it():
    shown = {words[0] for _, words in COMMANDS}
    assert {'train', 'dist', 'slurm', 'test', 'layers', 'report', 'doctor', 'configs'} <= shown


@pytest.mark.parametrize('page, words', COMMANDS, ids=[' '.join(w)[:60] for _, w in COMMANDS])
def test_a_command_of_the_docs_exists(page, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # not the checkout
    name, *rest = words
    assert name in commands(), page
    sub = rest[:1] if name == 'sweep' and rest and not rest[0].startswith('-') else []
    # `dist` and `slurm` hand what follows to `train`.
    texts = help_of(name, *sub) + (help_of('train') if name in ('dist', 'slurm') else '')
    for word in rest:
        if word.startswith('--') and word != '--help':
            assert re.search(rf'{re.escape(word.partition("=")[0])}\b', texts), (page, word)
    if name in CONFIG_AT and len(rest) > CONFIG_AT[name]:
        config = rest[CONFIG_AT[name]]
        # Capitals stand for a file of the reader's, as does one that the page shows.
        if not config.isupper() and not config.startswith('-') and '_my-net' not in config:
            shipped.find_config(config)


def messages(file):
    """Strings of a module that are no docstrings, so that a user may read them."""
    tree = ast.parse(file.read_text(encoding='utf-8'))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


def test_no_message_sends_the_user_of_a_wheel_to_a_script_of_the_checkout():
    named = {
        (str(file.relative_to(ROOT)), script)
        for file in (ROOT / 'bocb_mm').rglob('*.py')
        for text in messages(file)
        for script in re.findall(r'\btools/\w+\.(?:py|sh)\b', text)
    }
    # The doctor and the stand-ins say besides what to do without a checkout.
    allowed = {'bocb_mm/doctor', 'bocb_mm/stand_ins', 'bocb_mm/cli/doctor.py'}
    setup = {(f, s) for f, s in named if s == 'tools/setup_env.sh' and f.startswith(tuple(allowed))}
    assert setup and named == setup
