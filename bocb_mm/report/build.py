"""Put a report together: read, compute, write the files of ``--out DIR``."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from bocb_mm.errors import UserError
from bocb_mm.report import (
    coupling,
    extended,
    figures,
    html,
    intervals,
    load,
    paper,
    ranking,
    records,
    shared,
    stats,
    tables,
    tuning,
)
from bocb_mm.report.coupling import Coupling
from bocb_mm.report.model import Options, Report, ResultTable
from bocb_mm.runs.files import atomic_write_text

RANKINGS = ('rankings.csv', 'rankings_paper.csv', 'rankings_recomputed.csv')
# What follows a table's name in the names of its CSV files.
TABLE_FILES = (
    '', '_stats', '_failed', '_cells', '_coupling', '_sensitivity', '_intervals', '_tuning',
    '_printed',
)  # fmt: skip


def check_out(options: Options, out: Path) -> None:
    """Refuse, before any work, an output directory that cannot take a report.

    Raises:
        UserError: It is no directory, cannot be written, or holds an input that a file of the
            report would overwrite.
    """
    there = next(p for p in (out, *out.absolute().parents) if p.exists() or p.is_symlink())
    if not there.is_dir():
        raise UserError(f'--out {out}: {there} is a file; name a directory')
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f'--out {out}: {there} cannot be written by you; name another directory')
    page, drawings = out / 'report.html', out / 'figures'
    if page.is_dir() or (drawings.exists() and not drawings.is_dir()):
        what = page if page.is_dir() else drawings
        raise UserError(f'--out {out}: the report needs the name of {what}; move that away')
    for path in {*map(Path, options.csvs()), *options.shared()}:
        homes = {path.absolute().parent, path.resolve().parent}
        if any(home.resolve() == out.resolve() for home in homes):
            raise UserError(
                f'--out {out}: {path} lies in it, and a report overwrites no input; '
                'name another directory'
            )


def gather(options: Options) -> Report:
    """Read everything that ``options`` names and compute the statistics.

    Raises:
        UserError: Nothing to report on, or an input that is no run directory and no table.
    """
    if options.gamma is not None:
        stats.check_gamma(options.gamma)
    shared_files = options.shared()
    csvs = [p for p in options.csvs() if Path(p) not in shared_files]
    directories = records.run_directories(options.roots())
    if not (csvs or directories or shared_files or options.paper):
        where = ', '.join(options.paths) or 'nothing given'
        raise UserError(f'no run.json found ({where}); give run directories, CSV tables or --paper')
    found = [load.table_from_csv(path, options.gamma, options.metric) for path in csvs]
    scan = records.read_runs(directories, options.metric, options.progress)
    scan.runs += shared.read(shared_files)
    rows, left_out = load.tidy_runs(scan.runs, options.value)
    found = extended.split(load.tables_from_runs(rows, scan.runs, options.gamma) + found)
    if options.paper:
        for table in found:
            load.add_reference(table)
        taken = {t.name for t in found}
        for table in load.paper_tables(options.gamma):
            table.name += '_paper' if table.name in taken else ''
            table.title += ' (the paper)' if taken else ''
            found.append(table)
    _unique_names(found)
    source = next((s for s in ('runs', 'csv', 'paper') if any(t.source == s for t in found)), '')
    if not source:
        raise UserError('no run has a result: ' + '; '.join((scan.broken + left_out)[:3]))
    used = extended.ranked([t for t in found if t.source == source])
    if source == 'paper':
        ranks = ranking.rank_paper(options.weights)
    else:
        ranks = ranking.rank_runs(used, scan.runs, options.weights, options.cost)
    couplings = {t.name: couplings_of(t) for t in found}
    return Report(options, scan, found, left_out, ranks, source, couplings)


def _unique_names(found: list[ResultTable]) -> None:
    """Give tables other names where two files of the report would have one (in any case)."""
    taken = set(RANKINGS)
    for table in found:
        name, count = table.name, 1
        while taken & (files := {f'{table.name}{part}.csv'.lower() for part in TABLE_FILES}):
            count += 1
            table.name = f'{name}_{count}'
        taken |= files


def couplings_of(table: ResultTable) -> list[Coupling]:
    """The coupling of each task and metric of a table."""
    seeds, found = table.replicates(), []
    for group, columns in table.groups().items():
        values = table.values[columns]
        found.append(
            coupling.sensitivity(coupling.coupling(values, seeds, group=group), values, seeds)
        )
    return found


def write(report: Report, out: Path) -> list[Path]:
    """Write every file of the report below ``out`` and return their paths.

    Raises:
        UserError: A file cannot be written.
    """
    try:
        return _write(report, out)
    except OSError as error:
        where = error.filename2 or error.filename or out
        raise UserError(f'--out {out}: {where} cannot be written ({error.strerror})') from None


def not_of_this_report(out: Path, files: list[Path]) -> list[str]:
    """Tables and figures in ``out`` that this report did not write: of an earlier one, mostly."""
    there = [p for folder in (out, out / 'figures') if folder.is_dir() for p in folder.iterdir()]
    kinds = ('.csv', '.md', '.tex', '.svg', '.png')
    return sorted(str(p.relative_to(out)) for p in set(there) - set(files) if p.suffix in kinds)


def _write(report: Report, out: Path) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    written = _texts(report)
    for name, text in written.items():
        atomic_write_text(out / name, text)
    drawn, drawings = _draw(report, out / 'figures')
    problems = [*report.scan.broken, *report.left_out]
    atomic_write_text(out / 'report.html', html.page(report, drawn, problems))
    return [*(out / name for name in written), *drawings, out / 'report.html']


def _texts(report: Report) -> dict[str, str]:
    """Name to content of every table file of the report."""
    written: dict[str, str] = {}
    for table in report.tables:
        tolerance = report.options.tolerance
        written |= _table_files(table, report.couplings[table.name], tolerance)
    aspects = report.rankings[[*stats.WEIGHTS, 'overall']].rename_axis('optimizer')
    written['rankings.csv'] = tables.csv_text(aspects)
    if report.options.paper:
        written['rankings_paper.csv'] = tables.csv_text(ranking.against_paper(report.rankings))
        # What our definitions of the aspects make of the paper's results, beside its printed ranks.
        from_results = ranking.rank_runs(load.paper_tables(report.options.gamma), [])
        recomputed = ranking.against_paper(from_results)
        written['rankings_recomputed.csv'] = tables.csv_text(recomputed)
    return written


def _draw(report: Report, folder: Path) -> tuple[list[tuple[figures.Figure, bytes]], list[Path]]:
    """Write the images of every figure; the SVG of each for the page, and the files written."""
    wanted = list(figures.figures(report, report.left_out)) if report.options.figures else []
    drawn, files = [], []
    if wanted:
        folder.mkdir(exist_ok=True)
    for figure in records.bar(wanted, 'drawing', report.options.progress, few=12):
        svg, png = figures.render(figure)
        for suffix, content in (('svg', svg), ('png', png)):
            path = folder / f'{figure.name}.{suffix}'
            path.write_bytes(content)
            files.append(path)
        drawn.append((figure, svg))
    return drawn, files


def _table_files(table: ResultTable, coupled: list[Coupling], tolerance: float) -> dict[str, str]:
    """Name to content of the files of one table."""
    name, csv_text = table.name, tables.csv_text
    failed = stats.failures(table.values, table.gamma)
    spread = intervals.stability_intervals(table.values, table.replicates())
    for column in table.errors:
        failed.loc[failed['column'] == column, ['value', 'threshold']] *= -1
        if column in spread.index:
            low, high = spread.loc[column, ['mean_low', 'mean_high']]
            spread.loc[column, ['mean_low', 'mean_high']] = -high, -low
    files = {
        f'{name}.csv': csv_text(table.shown(table.values)),
        f'{name}.md': tables.markdown(table),
        f'{name}.tex': tables.latex(table),
        f'{name}_stats.csv': csv_text(table.statistics),
        f'{name}_failed.csv': csv_text(failed, index=False),
        f'{name}_cells.csv': csv_text(tables.cells_frame(table), index=False),
        f'{name}_coupling.csv': csv_text(tables.coupling_frame(coupled)),
    }
    left_out = [c.left_out.assign(group=c.group) for c in coupled if len(c.left_out)]
    if left_out:
        files[f'{name}_sensitivity.csv'] = csv_text(pd.concat(left_out))
    if len(spread):
        files[f'{name}_intervals.csv'] = csv_text(spread)
    if table.source == 'runs':
        ease = tuning.tuning_ease(table.settings, tolerance)
        if ease.notna().any().any():
            files[f'{name}_tuning.csv'] = csv_text(ease)
    if table.source == 'paper' and name.startswith('table1_cifar100'):
        printed = paper.printed_against_table(table.statistics)
        files[f'{name}_printed.csv'] = csv_text(printed)
    return files
