"""CSV, Markdown and LaTeX of a table, with names that mean something to each of them."""

import shutil
import subprocess

import pandas as pd
import pytest

from bocb_mm.report import load, paper, stats, tables, wide_csv

NASTY = ['=1+1', '<script>alert(1)</script>', 'a|b', r'50%_\x{y}~^"&$#', '**x**', 'Größe', '漢']


@pytest.fixture
def nasty():
    cells = {name: [70.0 + i, 60.0, stats.DIVERGED, float('nan')] for i, name in enumerate(NASTY)}
    return load.from_frame('nasty', pd.DataFrame(cells, index=[*NASTY[:3], '+x']), 'csv')


def test_csv_keeps_numbers_and_disarms_formulas(nasty):
    text = tables.csv_text(nasty.values)
    lines = text.splitlines()
    assert lines[0].startswith("optimizer,'=1+1,<script>")
    assert lines[1].startswith("'=1+1,70,71,72") and lines[4].startswith("'+x,,")
    assert lines[3].split(',')[1:] == ['diverged'] * len(NASTY)


@pytest.mark.parametrize('name', paper.TABLES)
def test_csv_comes_back_as_it_was(tmp_path, name):
    path = tmp_path / 'again.csv'
    path.write_text(tables.csv_text(paper.read(name)))
    pd.testing.assert_frame_equal(
        wide_csv.read(path), paper.read(name), check_names=False, check_dtype=False
    )


def test_markdown_shows_names_as_they_are(nasty):
    text = tables.markdown(nasty)
    assert '<script>' not in text and '&lt;script&gt;' in text
    rows = [line for line in text.splitlines() if line.startswith('| ')]
    unescaped = {line.replace('\\|', '').count('|') for line in rows}
    assert unescaped == {len(NASTY) + 2}


def test_marks_of_a_table():
    results = pd.DataFrame({'R-50': [80.0, 79.9, 79.8, 79.7, 60.0, 79.6]})
    table = load.from_frame('t', results.set_axis(list('abcdef')), 'csv')
    text = tables.markdown(table)
    assert '| a | **80.0** |' in text
    assert '*60.0*' in text and '**60.0**' not in text


@pytest.mark.parametrize(
    ('optimizers', 'marked'), [(1, 1), (4, 1), (5, 1), (9, 1), (10, 2), (20, 4)]
)
def test_the_best_fifth_is_marked(optimizers, marked):
    results = pd.DataFrame({'R-50': range(optimizers)}, index=[f'o{i}' for i in range(optimizers)])
    table = load.from_frame('t', results.astype(float), 'csv')
    assert table.top['R-50'].sum() == tables.cells_frame(table)['top'].sum() == marked
    start = f'The {marked} best of a column are' if marked > 1 else 'The best of a column is'
    assert tables.legend(table).startswith(start)


def test_of_five_optimizers_the_failed_are_not_among_the_best():
    results = pd.DataFrame({'R-50': [80.0, 79.9, 75.0, 70.0, 60.0]}, index=list('abcde'))
    table = load.from_frame('t', results, 'csv')
    assert table.failed['R-50'].sum() > 1 and not (table.top & table.failed)['R-50'].any()


def test_cell_texts_with_seeds_and_the_paper():
    table = load.from_frame('table1_cifar100', pd.DataFrame({'R-50': [79.0]}, index=['SGD']), 'csv')
    table.cells.loc[0, ['sd', 'n']] = [0.25, 3]
    load.add_reference(table)
    assert tables.cell_texts(table).iat[0, 0] == '79.0 ± 0.2 (3) / 78.8 / +0.2'


def test_latex_escapes(nasty):
    text = tables.latex(nasty)
    assert r'50\%\_\textbackslash{}x\{y\}\textasciitilde{}\textasciicircum{}' in text
    assert '漢' not in text and 'Größe' in text


@pytest.mark.skipif(shutil.which('pdflatex') is None, reason='pdflatex is not installed')
def test_latex_compiles_alone_and_within_a_document(tmp_path, nasty):
    wanted = [*load.paper_tables(), nasty]
    for table in wanted:
        (tmp_path / f'{table.name}.tex').write_text(tables.latex(table), encoding='utf-8')
    inputs = '\n'.join(rf'\input{{{t.name}.tex}}' for t in wanted)
    (tmp_path / 'whole.tex').write_text(
        r'\documentclass{article}\usepackage{booktabs,graphicx,xcolor}\begin{document}'
        f'\n{inputs}\n' + r'\end{document}'
    )
    for name in ('table1_cifar100', 'nasty', 'whole'):
        done = subprocess.run(
            ['pdflatex', '-interaction=nonstopmode', '-halt-on-error', f'{name}.tex'],
            cwd=tmp_path, capture_output=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout.decode(errors='replace')[-2000:]
        assert (tmp_path / f'{name}.pdf').stat().st_size > 5000


def test_latex_colours_the_top_four_and_the_failed():
    table = load.paper_tables()[0]
    text = tables.latex(table)
    failed, best = table.failed, table.top
    assert text.count(r'\textcolor{bocbblue}') == int(best.to_numpy().sum())
    assert text.count(r'\textcolor{bocbgray}') == int((failed & ~best).to_numpy().sum())


def test_decimals():
    assert [t.digits for t in load.paper_tables()] == [2, 2, 1]
    losses = pd.DataFrame({'a': [0.0012, 0.0099]}, index=['SGD', 'AdamW'])
    assert load.from_frame('t', losses, 'csv', metric='loss').digits == 5  # 0.00120
