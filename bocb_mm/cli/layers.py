"""``bocb layers A.pth B.pth --out metrics.csv``: the layers of checkpoints, measured."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bocb_mm.errors import UserError, one_line_errors
from bocb_mm.runs.files import atomic_write_text, check_parent

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = ('alpha', 'entropy', 'l2_norm', 'pca_energy')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of ``bocb layers``."""
    parser = argparse.ArgumentParser(
        description='PL alpha, entropy, L2 norm and PCA energy of every layer of checkpoints '
        '(mmengine, timm, torchvision, safetensors), read without running code in them.'
    )
    parser.add_argument('checkpoint', nargs='+', help='.pth or .safetensors file, or URL')
    parser.add_argument('--out', required=True, metavar='FILE.csv', help='a row a layer')
    parser.add_argument('--layers', nargs='+', metavar='PATTERN', help="e.g. 'backbone.*'")
    parser.add_argument('--bins', type=int, default=256, help='of the entropy (default: 256)')
    parser.add_argument('--k', type=int, nargs='+', default=[10], help='of the PCA energy')
    parser.add_argument('--fit', default='ks', help='ks, median or clip_xmax (default: ks)')
    parser.add_argument('--precision', default='auto', help='auto, float32 or float64')
    parser.add_argument('--backend', default='native', help='native or weightwatcher')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='load checkpoints that can run any code'
    )
    parser.add_argument('--quiet', action='store_true', help='no progress bar, no table')
    return parser.parse_args(argv)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write one CSV, print one table."""
    args = parse_args(argv)
    out = Path(args.out)
    check_parent('--out', out)
    names = _names(args.checkpoint)
    frame = _measure_all(args, names)
    atomic_write_text(out, frame.to_csv(index=False))
    if not args.quiet:
        _show(frame, list(names.values()))
        print(f'{len(frame)} rows in {out}')
    return 0


def _names(checkpoints: list[str]) -> dict[str, str]:
    """Path to what stands in the column ``file``: the name, or the path where names repeat."""
    short = [Path(c).name for c in checkpoints]
    return {c: c if short.count(s) > 1 else s for c, s in zip(checkpoints, short)}


def _measure_all(args: argparse.Namespace, names: dict[str, str]) -> pd.DataFrame:
    import pandas as pd
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from bocb_mm.metrics import layer_metrics

    columns = [
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ]
    frames = []
    with Progress(*columns, console=Console(stderr=True), disable=args.quiet) as progress:
        for checkpoint, name in names.items():
            task = progress.add_task(name, total=None)
            advance = functools.partial(_advance, progress, task)
            frame = layer_metrics(
                checkpoint, layers=args.layers, bins=args.bins, k=args.k, fit=args.fit,
                backend=args.backend, precision=args.precision, trust=args.trust_checkpoint,
                progress=advance,
            )  # fmt: skip
            if frame.empty:
                wanted = f'matches {" ".join(args.layers)}' if args.layers else 'has two dimensions'
                raise UserError(f'{checkpoint}: no weight {wanted}')
            frames.append(frame.assign(file=name))
    return pd.concat(frames, ignore_index=True)


def _advance(progress: Any, task: Any, done: int, total: int) -> None:
    progress.update(task, completed=done, total=total)


def _show(frame: pd.DataFrame, names: list[str]) -> None:
    """One line a layer and file; layers meet without the prefix ``backbone.``."""
    from rich.console import Console
    from rich.table import Table

    shown = frame.assign(layer=frame['layer'].str.removeprefix('backbone.'))
    letters = {n: chr(ord('A') + i) if i < 26 else str(i) for i, n in enumerate(names)}
    several = len(names) > 1
    table = Table(caption='alpha in brackets: not eligible')
    table.add_column('layer', overflow='fold', min_width=12)
    if several:
        table.add_column('file')
    for metric in _SHOWN:
        table.add_column(metric, justify='right', no_wrap=True)
    cells = {(row['layer'], row['file']): row for row in shown.to_dict('records')}
    for layer in dict.fromkeys(shown['layer']):
        for i, (name, letter) in enumerate(letters.items()):
            row = cells.get((layer, name), {})
            head = ('' if i else layer, letter) if several else (layer,)
            table.add_row(*head, *(_cell(row, metric) for metric in _SHOWN))
    console = Console()
    if several:
        for name, letter in letters.items():
            console.print(f'{letter}: {name}', markup=False, highlight=False)
    console.print(table)


def _cell(row: dict[str, Any], metric: str) -> str:
    value = row.get(metric, float('nan'))
    if value != value:
        return '-'
    return f'({value:.3g})' if metric == 'alpha' and not row['eligible'] else f'{value:.3g}'


if __name__ == '__main__':
    sys.exit(main())
