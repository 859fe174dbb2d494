"""Damaged tables and records: one line and a status, or a report; never a traceback, never a loss."""

import contextlib
import csv
import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bocb_mm.errors import UserError
from bocb_mm.report import probed
from bocb_mm.report.cli import main
from bocb_mm.report.probe_page import page
from bocb_mm.report.probed import analyse
from bocb_mm.report.shared_check import main as check_results
from tests.report.conftest import add_layers
from tests.report.synthetic_runs import make_record, save
from tests.report.test_probed import DEFAULTS, SUBJECT, runs

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


def shared_results():
    """A file of shared results, as text."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'results.csv'
        for optimizer, best in (('SGD', 70.0), ('AdamW', 72.0)):
            save(Path(folder) / 'runs', make_record(optimizer, best=best))
        said = ['--hardware', 'made up', '--log', 'https://example.org', '--selected-on', 'same']
        assert run([str(Path(folder) / 'runs'), '--export', str(out), '--quiet', *said])[0] == 0
        return out.read_text(encoding='utf-8')


@st.composite
def rows_of_shared_results(draw, text):
    """Shared results with a few cells replaced."""
    head, *lines = csv.reader(io.StringIO(text))
    for _ in range(draw(st.integers(1, 3))):
        line, place = draw(st.sampled_from(lines)), draw(st.integers(0, len(head) - 1))
        line[place] = draw(
            st.sampled_from(['', '-1', 'nan', 'inf', '1e999', '9' * 400, '[1]', '{"a": [[]]}', 'SGD',
                             'diverged', '0.5 0.6', 'a=b', '0', 'é', '[' * 9999, 'x\0y'])
        )  # fmt: skip
    out = io.StringIO()
    csv.writer(out, lineterminator='\n').writerows([head, *lines])
    return out.getvalue()


RESULTS = shared_results()


@settings(QUIET, max_examples=60)
@given(st.one_of(rows_of_shared_results(RESULTS), damaged(RESULTS)), st.booleans())
def test_shared_results(text, garbage):
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / 'mine.csv', Path(folder) / 'o'
        path.write_bytes(text.encode() + b'\xff' * garbage)
        check(path, [str(path), '--out', str(out), '--no-figures', '--quiet'], out)
        with contextlib.redirect_stdout(io.StringIO()):
            assert check_results([str(path)]) in (0, 1)


PROBE = analyse(
    SUBJECT, runs({'SGD': 40, 'LARS': 38, 'AdamW': 47, 'LION': 46}), DEFAULTS, margin=3.0
)


@st.composite
def probes(draw):
    """A probe's result with a value somewhere in it replaced or gone."""
    result = json.loads(json.dumps(PROBE))
    for _ in range(draw(st.integers(1, 3))):
        target = result
        while True:
            keys = list(target) if isinstance(target, dict) else list(range(len(target)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(target[key], (dict, list)) and draw(st.integers(0, 3)):
                target = target[key]
            elif draw(st.booleans()):
                target[key] = draw(VALUES)
                break
            else:
                del target[key]
                break
    return json.dumps(result)


@settings(QUIET, max_examples=150)
@given(st.one_of(probes(), damaged(json.dumps(PROBE))))
def test_probes(text):
    """Of a probe of another network, all that is read is refused in a line or can be shown."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'probe.json')
        path.write_text(text, encoding='utf-8')
        try:
            found = probed.read(path)
        except UserError as error:
            assert str(path) in str(error) and '\n' not in str(error) and len(str(error)) < 500
            return
    other = replace(SUBJECT, backbone='other')
    again = analyse(other, runs({'SGD': 40, 'AdamW': 47}), DEFAULTS, 3.0, [found])
    if again['references']:
        assert 'MyNet' in page(again)
