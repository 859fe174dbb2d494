"""Shared results: what is exported is read back the same, and what breaks the rules is named."""

import csv

import pandas as pd
import pytest

from bocb_mm.errors import UserError
from bocb_mm.report import shared
from bocb_mm.report.cli import main
from bocb_mm.report.shared_check import main as check
from bocb_mm.report.shared_check import problems
from tests.report.synthetic_runs import make_grid, make_record, save

SAID = ('--hardware', 'made up', '--log', 'https://example.org/runs', '--selected-on', 'same')


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Two optimizers on two backbones, four settings each, two seeds; one run diverged, one failed."""
    root = tmp_path_factory.mktemp('runs')
    make_grid(
        root, ['SGD', 'AdamW'], ['R-50', 'CNX-T'], rates=(1e-3, 1e-2), decays=(0.0, 0.05), seeds=2
    )
    save(root, make_record('LION', 'R-50', best=None, status='diverged'))
    save(root, make_record('LARS', 'R-50', best=None, status='failed'))
    return root


@pytest.fixture(scope='module')
def exported(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp('results') / 'made_up.csv'
    assert main([str(runs), '--export', str(out), '--quiet', *SAID]) == 0
    return out


def change(path, to, edit):
    """A copy of a file with its rows edited; returns its path."""
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    rows = edit(rows) or rows
    with to.open('w', newline='') as file:
        writer = csv.DictWriter(file, shared.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return to


def cells(out):
    """The table's values, and what its seeds and intervals are."""
    return pd.read_csv(out / 'table1_cifar100.csv'), pd.read_csv(out / 'table1_cifar100_cells.csv')


def test_what_is_exported_reads_back_as_the_runs(runs, exported, tmp_path):
    for name, path in (('runs', runs), ('shared', exported.parent)):
        assert main([str(path), '--out', str(tmp_path / name), '--quiet', '--no-figures']) == 0
    (values, pairs), (shared_values, shared_pairs) = (
        cells(tmp_path / 'runs'),
        cells(tmp_path / 'shared'),
    )
    pd.testing.assert_frame_equal(shared_values, values)
    pd.testing.assert_frame_equal(shared_pairs, pairs)
    assert len(values) == 3  # the diverged run too


def test_every_setting_is_a_row_and_passes_the_check(exported, tmp_path, capsys):
    rows = shared.rows(exported)
    assert len(rows) == 2 * 2 * 4 + 1
    assert {row['n'] for row in rows if row['optimizer'] != 'LION'} == {'2'}
    (lost,) = [row for row in rows if row['optimizer'] == 'LION']
    assert lost['values'] == 'diverged' and lost['n_diverged'] == '1' and lost['mean'] == ''
    assert problems([exported], tmp_path) == []
    assert check([str(exported.parent)]) == 0
    assert '1 file, 0 problems' in capsys.readouterr().out


def test_runs_and_their_own_export_are_not_counted_twice(runs, exported, tmp_path):
    assert (
        main([str(runs), str(exported), '--out', str(tmp_path / 'both'), '--quiet', '--no-figures'])
        == 0
    )
    assert main([str(runs), '--out', str(tmp_path / 'runs'), '--quiet', '--no-figures']) == 0
    assert set(cells(tmp_path / 'both')[1]['n']) == set(cells(tmp_path / 'runs')[1]['n'])


@pytest.mark.parametrize('quoted', [False, True])
def test_a_file_that_a_spreadsheet_has_saved_is_read(exported, tmp_path, quoted):
    text = exported.read_text()
    if quoted:
        head, rest = text.split('\n', 1)
        text = ','.join(f'"{name}"' for name in head.split(',')) + '\r\n' + rest
    place = tmp_path / 'in' / 'saved.csv'
    place.parent.mkdir()
    place.write_text(text, encoding='utf-8-sig')
    assert shared.files_in([place.parent]) == [place]
    assert len(shared.read([place])) == len(shared.read([exported]))


def test_more_seeds_than_values_are_refused(exported, tmp_path):
    odd = change(exported, tmp_path / 'odd.csv', first('seeds', '0 1 2'))
    with pytest.raises(UserError, match=r'odd.csv:2: 3 seeds and \d values'):
        shared.read([odd])


def test_a_rerun_that_contradicts_counts_beside_the_first(exported, tmp_path):
    def other_values(rows):
        for row in rows:
            row['log'] = 'https://example.org/again'
            row['values'] = ' '.join(
                w if w == 'diverged' else str(float(w) - 1) for w in row['values'].split()
            )

    again = change(exported, tmp_path / 'again.csv', other_values)
    copy = change(exported, tmp_path / 'copy.csv', lambda rows: None)
    first = shared.read([exported])
    assert len(shared.read([exported, copy])) == len(first)
    both = shared.read([exported, again])
    diverged = sum(run['status'] == 'diverged' for run in first)
    assert len(both) == 2 * len(first) - diverged
    assert [run['seed'] for run in both[len(first) :]] == [None] * (len(first) - diverged)


def first(column, value):
    def edit(rows):
        rows[0][column] = value

    return edit


@pytest.mark.parametrize(
    'edit, words',
    [
        (first('hardware', ''), 'hardware is empty'),
        (first('config_hash', 'abc'), '16 hexadecimal digits'),
        (first('n', '3'), 'n is 3, the values give 2'),
        (first('mean', '99.9'), 'mean is 99.9'),
        (first('ci_low', ''), 'ci_low is empty'),
        (first('seeds', '0 0'), 'different whole numbers'),
        (first('seeds', '0'), '2 values for 1 seeds'),
        (first('values', '70 lots'), 'numbers or'),
        (first('values', '70 inf'), 'numbers or'),
        (first('selected_on', 'test'), "selected_on 'test'"),
        (first('evaluation', 'mean'), "evaluation 'mean'"),
        (first('optimizer', 'sgd'), 'the catalog spells it SGD'),
        (first('backbone', 'ResNet-50'), 'the catalog spells it R-50'),
        (first('format', 'bocb-results-2'), 'bocb-results-1 is expected'),
        (first('log', 'no/such/folder'), 'neither an address nor a path'),
        (first('date', 'yesterday'), '2026-11-28'),
        (first('lr', 'fast'), "lr 'fast'"),
        (first('versions', '2.14.1'), 'torch=...'),
        (lambda rows: [*rows, rows[0]], 'stands in'),
    ],
)  # fmt: skip
def test_a_row_against_the_rules_is_named(exported, tmp_path, capsys, edit, words):
    path = change(exported, tmp_path / 'wrong.csv', edit)
    assert check([str(path)]) == 1
    out = capsys.readouterr().out
    assert 'wrong.csv:' in out and words in out


def test_a_head_of_another_file_is_refused(exported, tmp_path, capsys):
    path = tmp_path / 'old.csv'
    path.write_text(exported.read_text().replace('n_diverged', 'lost', 1))
    assert check([str(path)]) == 1 and 'the head is not that of' in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main([str(path), '--out', str(tmp_path / 'out')])
    assert end.value.code == 2


@pytest.mark.parametrize('left_out', range(0, 6, 2))
def test_what_no_record_knows_must_be_said(runs, tmp_path, capsys, left_out):
    said = [*SAID[:left_out], *SAID[left_out + 2 :]]
    with pytest.raises(SystemExit) as end:
        main([str(runs), '--export', str(tmp_path / 'r.csv'), *said])
    assert end.value.code == 2 and SAID[left_out] in capsys.readouterr().err
    assert not (tmp_path / 'r.csv').exists()


def test_a_cell_that_cannot_be_read_is_one_line(exported, tmp_path, capsys):
    path = change(exported, tmp_path / 'wrong.csv', first('architecture', '{'))
    with pytest.raises(SystemExit) as end:
        main([str(path), '--out', str(tmp_path / 'out'), '--no-figures'])
    err = capsys.readouterr().err
    assert end.value.code == 2 and 'wrong.csv:2' in err and err.count('\n') == 1


def test_the_results_of_this_repository_keep_the_rules(root):
    assert problems(sorted((root / 'results').glob('*.csv')), root) == []
