"""Damaged tables and records: one line and a status, or a report; never a traceback, never a loss."""

import contextlib
import io
import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bocb_mm.report.cli import main
from tests.report.conftest import add_layers
from tests.report.synthetic_runs import make_record, save

TABLE = 'optimizer,R-50,CNX-T,DeiT-S\nSGD,80.1,70,60\nAdamW,79,diverged,75\nLAMB,,82,76\n'
QUIET = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


def run(arguments):
    """Exit status and what was said; a traceback fails the test."""
    out, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code
    return status, said.getvalue()


def check(path, arguments, out):
    """Run the tool on a damaged input and see that it is told or done, and the input kept."""
    before = path.read_bytes()
    status, said = run(arguments)
    assert path.read_bytes() == before
    assert status in (0, 1, 2)
    if status == 2:
        assert said.count('\n') == 1 and said.startswith('error: ')
    else:
        assert (out / 'report.html').read_text(encoding='utf-8').endswith('</html>')
        assert (status == 1) == said.startswith('skipped: ')


@st.composite
def damaged(draw, text):
    """``text`` with a few characters taken out, put in or changed."""
    letters = list(text)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(letters)))
        new = draw(
            st.sampled_from([*',;\t\n"\'\r0e-.{[]}:\\', '\0', '\x1c', 'é', '漢', '\u2028', ''])
        )
        letters[place : place + draw(st.integers(0, 3))] = new
    return ''.join(letters)


@QUIET
@given(st.one_of(damaged(TABLE), st.text(max_size=60)))
def test_tables(text):
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / 'mine.csv', Path(folder) / 'o'
        path.write_text(text, encoding='utf-8', newline='')
        check(path, [str(path), '--out', str(out), '--no-figures', '--quiet'], out)


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.sampled_from([10**400, -(10**18), 1e308, -1e-300, 0.5, 'nan', '', 'SGD', '</script>', '漢']),
        st.floats(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(['lr', 'epoch', 'a']), inner)
    ),
    max_leaves=4,
)  # fmt: skip


@st.composite
def records(draw):
    """A run record with a few of its values, or those of an evaluation, replaced or gone."""
    record = json.loads(json.dumps(make_record('SGD', best=70.0).__dict__))
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from(['top', 'top', 'evaluation']))
        target = record if where == 'top' else (record.get('evaluations') or [{}])[0]
        if not isinstance(target, dict) or not target:
            continue
        name = draw(st.sampled_from(sorted(target)))
        if draw(st.booleans()):
            target[name] = draw(VALUES)
        else:
            target.pop(name)
    return json.dumps(record)


@QUIET
@given(st.one_of(records(), damaged(json.dumps(make_record('SGD').__dict__))))
def test_run_records(text):
    with tempfile.TemporaryDirectory() as folder:
        place, out = Path(folder) / 'r' / 'x', Path(folder) / 'o'
        save(Path(folder) / 'r', make_record('AdamW', best=71.0))
        place.mkdir(parents=True)
        path = place / 'run.json'
        path.write_text(text, encoding='utf-8')
        check(path, [str(place.parent), '--out', str(out), '--no-figures', '--quiet'], out)


@settings(QUIET, max_examples=6)
@given(st.data())
def test_layer_metrics(data):
    """Their figures are drawn where they can be read, and the file is named where not."""
    with tempfile.TemporaryDirectory() as folder:
        place, out = save(Path(folder) / 'r', make_record('SGD')), Path(folder) / 'o'
        add_layers(place, n=4)
        path = place / 'layer_metrics.csv'
        path.write_text(data.draw(damaged(path.read_text())), encoding='utf-8')
        check(path, [str(place), '--out', str(out), '--quiet'], out)
