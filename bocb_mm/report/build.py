"""Put a report together: read, compute, write the files of ``--out DIR``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from bocb_mm.errors import UserError
from bocb_mm.report import coupling, figures, html, load, paper, ranking, records, stats, tables
from bocb_mm.report.load import ResultTable
from bocb_mm.report.records import Scan
from bocb_mm.report.upkeep import Options
from bocb_mm.runs.files import atomic_write_text


@dataclass
class Report:
    """Everything a report shows, computed.

    Attributes:
        options: What it was made with.
        scan: The runs, and the records that could not be read.
        tables: Result tables: from runs, from CSV files, from the paper.
        left_out: One line a run without a result.
        rankings: Of the optimizers: by the runs, without any by the CSVs, else the paper's.
        rankings_source: ``'runs'``, ``'csv'`` or ``'paper'``.
        couplings: By name of table.
    """

    options: Options
    scan: Scan
    tables: list[ResultTable]
    left_out: list[str]
    rankings: pd.DataFrame
    rankings_source: str
    couplings: dict[str, coupling.Coupling] = field(default_factory=dict)

    def of(self, source: str) -> list[ResultTable]:
        """The tables of one source."""
        return [t for t in self.tables if t.source == source]


def gather(
    options: Options, cache: Path | None = None, found_runs: list[Path] | None = None
) -> Report:
    """Read everything that ``options`` names and compute the statistics.

    Args:
        options: What to report on.
        cache: See :func:`records.read_runs`.
        found_runs: The run directories, where the caller has looked for them already.

    Raises:
        UserError: Nothing to report on, or an input that is no run directory and no table.
    """
    csvs, directories = options.csvs(), found_runs
    if directories is None:
        directories = records.run_directories(options.roots())
    if not (csvs or directories or options.paper):
        where = ', '.join(options.paths) or 'nothing given'
        raise UserError(f'no run.json found ({where}); give run directories, CSV tables or --paper')
    scan = records.read_runs(directories, cache, options.progress)
    rows, left_out = load.tidy_runs(scan.runs, options.value)
    found = load.tables_from_runs(rows, options.gamma)
    for path in csvs:
        found.append(load.table_from_csv(path, options.gamma))
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
    used = [t for t in found if t.source == source]
    if source == 'paper':
        ranks = ranking.rank_paper(options.weights)
    else:
        ranks = ranking.rank_runs(used, scan.runs, options.weights, options.cost)
    couplings = {t.name: coupling.coupling(t.values, replicates(t)) for t in found}
    return Report(options, scan, found, left_out, ranks, source, couplings)


def _unique_names(found: list[ResultTable]) -> None:
    seen: dict[str, int] = {}
    for table in found:
        seen[table.name] = seen.get(table.name, 0) + 1
        if seen[table.name] > 1:
            table.name += f'_{seen[table.name]}'


def replicates(table: ResultTable) -> dict[tuple[str, str], list[float]]:
    """Results of the single seeds of a table's cells."""
    return {(c.optimizer, c.column): c.seed_values for c in table.cells.itertuples()}


def write(report: Report, out: Path) -> list[Path]:
    """Write every file of the report below ``out`` and return their paths."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out {out}: cannot be made ({error.strerror})') from None
    wanted = list(figures.figures(report, report.left_out)) if report.options.figures else []
    with figures.rendered(wanted) as pictures:  # other processes draw while this one writes
        written = _texts(report)
        for name, text in written.items():
            atomic_write_text(out / name, text)
        data = html.cell_data(report)
        drawn, drawings = _draw(wanted, pictures, out / 'figures', report.options.progress)
    page = html.page(report, data, drawn, [*report.scan.broken, *report.left_out])
    atomic_write_text(out / 'report.html', page)
    return [*(out / name for name in written), *drawings, out / 'report.html']


def _texts(report: Report) -> dict[str, str]:
    """Name to content of every table file of the report."""
    written: dict[str, str] = {}
    for table in report.tables:
        written |= _table_files(table, report.couplings[table.name])
    aspects = report.rankings[[*stats.WEIGHTS, 'overall']].rename_axis('optimizer')
    written['rankings.csv'] = tables.csv_text(aspects)
    if report.options.paper:
        written['rankings_paper.csv'] = tables.csv_text(ranking.against_paper(report.rankings))
        # What our definitions of the aspects make of the paper's results, beside its printed ranks.
        from_results = ranking.rank_runs(load.paper_tables(report.options.gamma), [])
        recomputed = ranking.against_paper(from_results)
        written['rankings_recomputed.csv'] = tables.csv_text(recomputed)
    return written


def _draw(
    wanted: list[figures.Figure],
    pictures: Iterator[tuple[bytes, bytes]],
    folder: Path,
    progress: bool,
) -> tuple[list[tuple[figures.Figure, bytes]], list[Path]]:
    """Write the pictures of every figure; the SVG of each for the page, and the files written."""
    drawn, files = [], []
    if wanted:
        folder.mkdir(exist_ok=True)
    for figure in records.bar(wanted, 'drawing', progress, few=12):
        svg, png = next(pictures)
        for suffix, content in (('svg', svg), ('png', png)):
            path = folder / f'{figure.name}.{suffix}'
            path.write_bytes(content)
            files.append(path)
        drawn.append((figure, svg))
    return drawn, files


def _table_files(table: ResultTable, coupled: coupling.Coupling) -> dict[str, str]:
    """Name to content of the files of one table."""
    name, csv_text = table.name, tables.csv_text
    statistics = table.statistics
    whole = pd.DataFrame(
        [[coupled.share, coupled.p_value, float('nan')]], ['(table)'], coupled.columns.columns
    )
    files = {
        f'{name}.csv': csv_text(table.values),
        f'{name}.md': tables.markdown(table),
        f'{name}.tex': tables.latex(table),
        f'{name}_stats.csv': csv_text(statistics),
        f'{name}_failed.csv': csv_text(stats.failures(table.values, table.gamma), index=False),
        f'{name}_cells.csv': csv_text(tables.cells_frame(table), index=False),
        f'{name}_coupling.csv': csv_text(pd.concat([whole, coupled.columns]).rename_axis('column')),
    }
    intervals = coupling.stability_intervals(table.values, replicates(table))
    if len(intervals):
        files[f'{name}_intervals.csv'] = csv_text(intervals)
    if table.source == 'runs':
        ease = coupling.tuning_ease(table.settings)
        if ease.notna().any().any():
            files[f'{name}_tuning.csv'] = csv_text(ease)
    if table.source == 'paper' and name.startswith('table1_cifar100'):
        printed = paper.printed_against_table(statistics)
        files[f'{name}_printed.csv'] = csv_text(printed)
    return files
