#!/usr/bin/env python
"""Does a probe say what a larger study with other optimizers says? The protocol: docs/probe.md.

    BOCB_REAL_DATA=DIR python tools/benchmarks/probe_validation.py OUT [--part probe study ...]
        [--network resnet ...] [--jobs N] [--dry-run | --tables]

For each network of configs/real_small/probe: a probe, a study (a probe with seven other optimizers
and other seeds), and the probe once more. What was stopped goes on; what has ended is not trained
again. Then it prints the tables, and leaves them in OUT as validation.md, validation.json and
validation.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bocb_mm.cli import probe
from bocb_mm.errors import UserError, one_line_errors
from bocb_mm.facts.tables import markdown
from bocb_mm.report import gap, style, validation
from bocb_mm.runs import exit_codes
from bocb_mm.runs.files import atomic_write_text

CONFIGS = ROOT / 'configs' / 'real_small' / 'probe'
NETWORKS = (
    'resnet', 'vgg', 'efficientnet', 'deit', 'poolformer', 'convnext', 'convnextv2', 'moganet'
)  # fmt: skip
ADAPTIVE, FIXED = ('LAMB', 'Adan', 'AdaBelief', 'AdamP'), ('SGDP', 'AdaBound', 'AdaDelta')
# Seeds of no two parts meet: 0 and 1 to 4, 200 to 204, 100 to 104.
PARTS: dict[str, list[str]] = {
    'probe': [],
    'study': ['--optimizers', *FIXED, *ADAPTIVE, '--first-seed', '200'],
    'again': ['--first-seed', '100'],
    'rate': ['--optimizers', 'SGD', 'AdamW:0.07'],  # as a user's project had it
}
ONE_NETWORK = {'rate': 'resnet'}
GRID = 20 * 5 * 5  # the paper's, in runs


def arguments_of(network: str, part: str, out: Path) -> list[str]:
    """What `bocb probe` is called with."""
    return [str(CONFIGS / f'{network}.py'), '--out', str(out / network / part), *PARTS[part]]


def cpu_seconds(folder: Path) -> float:
    """Processor time of all attempts in a probe's folder, the interrupted ones among them."""
    spent = 0.0
    for file in folder.rglob('attempts.jsonl'):
        for line in filter(None, file.read_text(encoding='utf-8').splitlines()):
            spent += json.loads(line).get('cpu_seconds', 0.0)
    return spent


def collect(out: Path) -> dict[str, dict[str, Any]]:
    """Every result that has come to its end, by network and part."""
    found: dict[str, dict[str, Any]] = {}
    for network in NETWORKS:
        for part in PARTS:
            file = out / network / part / 'probe.json'
            if file.exists():
                result = json.loads(file.read_text(encoding='utf-8'))
                if ended(result):
                    found.setdefault(network, {})[part] = result
    return found


def ended(result: Mapping[str, Any]) -> bool:
    """Whether a probe was not stopped on its way: all optimizers that train are confirmed."""
    seeds = result['protocol']['seeds']
    return all(len(r['fresh']) == seeds or r['tuned'] is None for r in result['optimizers'])


def tables(out: Path) -> str:
    """Write ``validation.json``, ``.png`` and ``.md``; returns the last one's text."""
    networks = collect(out)
    if not networks:
        raise UserError(f'{out}: holds no probe that has ended')
    spent = {(n, p): cpu_seconds(out / n / p) for n, parts in networks.items() for p in parts}
    whole = validation.summary(networks, ADAPTIVE, FIXED, spent)
    rate = networks.get('resnet', {}).get('rate')
    whole['rate'] = rate and {'sentences': rate['sentences'], 'optimizers': rate['optimizers']}
    text = '\n\n'.join(_lines(whole)) + '\n'
    atomic_write_text(out / 'validation.json', json.dumps(whole, indent=1) + '\n')
    atomic_write_text(out / 'validation.md', text)
    draw(whole['findings'], next(iter(networks.values()))['probe']['margin'], out)
    return text


def draw(findings: Mapping[str, Any], margin: float, out: Path) -> None:
    """The gaps that the probe, its repetition and the study found, a row a network."""
    looks = {'probe': style.BLUE, 'again': style.SKY, 'study': style.ORANGE}
    with style.drawing():
        made, grid = style.figure(5.2, 0.32 * len(findings) + 0.7)
        axes = grid[0, 0]
        axes.axvspan(-margin, margin, color=style.PALE, lw=0)
        axes.axvline(0, color=style.GRAY, lw=0.6)
        for place, (view, color) in enumerate(looks.items()):
            rows = [(i, f[view]['gap']) for i, f in enumerate(findings.values()) if view in f]
            found = [gap.Interval.of(numbers) for _, numbers in rows]
            axes.errorbar(
                [f.estimate for f in found], [i + 0.22 * (place - 1) for i, _ in rows],
                xerr=[[f.estimate - f.low for f in found], [f.high - f.estimate for f in found]],
                fmt='o', ms=3, lw=1, color=color, label=view if rows else None,
            )  # fmt: skip
        axes.set_yticks(range(len(findings)), list(findings))
        axes.invert_yaxis()
        axes.set_xlabel('adaptive minus fixed rates, points; band: the margin')
        axes.legend()
        made.savefig(out / 'validation.png', dpi=200)


def _lines(whole: Mapping[str, Any]) -> list[str]:
    """The parts of the text, tables in Markdown."""
    views = validation.VIEWS
    rows = [['network', *views]]
    for network, found in whole['findings'].items():
        rows.append([network, *(_finding(found.get(view)) for view in views)])
    parts = ['Gap in points with its 95 % interval, and the verdict:', markdown(rows)]
    head = ['probe against', 'networks', "Spearman's correlation", 'same verdict', 'another',
            'opposite', 'undecided', 'gaps compatible']  # fmt: skip
    counts = ('same', 'different', 'opposite', 'undecided', 'compatible')
    rows = [head]
    for view, found in whole['against'].items():
        said = _numbers(found['spearman'], '.2f')
        rows.append([view, str(found['networks']), said, *(str(found[k]) for k in counts)])
    parts.append(markdown(rows))
    rows = [['', 'networks', 'runs', 'processor minutes', 's a run', f'grid of {GRID} / runs']]
    for part, cost in whole['cost'].items():
        if cost['networks']:
            rows.append([
                part, str(cost['networks']), f'{cost["runs"]:.1f}', f'{cost["cpu_minutes"]:.1f}',
                f'{cost["cpu_seconds_a_run"]:.1f}', f'{GRID / cost["runs"]:.1f}',
            ])  # fmt: skip
    parts.append(markdown(rows))
    if whole['choices']:
        same = sum(c['optimizer'] for c in whole['choices'])
        near = [c['rates'] for c in whole['choices'] if c['rates'] is not None]
        parts.append(
            f'Two probes: the same optimizer is recommended on {same} of {len(whole["choices"])} '
            f'networks; {100 * sum(near) / max(1, len(near)):.0f} % of best rates are within a '
            'factor of 2.'
        )
    if whole['rate']:
        parts.append('Only the rate was wrong: ' + ' '.join(whole['rate']['sentences']))
    return parts


def _finding(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return 'not run'
    return f'{gap.Interval.of(found["gap"])}, {gap.VERDICTS[found["verdict"]].partition(",")[0]}'


def _numbers(numbers: list[float | None], form: str) -> str:
    estimate, low, high = ('unknown' if v is None else format(v, form) for v in numbers)
    return f'{estimate} [{low}, {high}]'


@one_line_errors
def main() -> int:
    """Train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=Path, metavar='OUT')
    parser.add_argument('--part', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--network', nargs='+', choices=NETWORKS, default=NETWORKS)
    parser.add_argument('--jobs', help='trainings at a time (default: one on each core)')
    parser.add_argument('--dry-run', action='store_true', help='print plan and cost of each')
    parser.add_argument('--tables', action='store_true', help='train nothing')
    args = parser.parse_args()
    done = collect(args.out)
    more = (['--jobs', args.jobs] if args.jobs else []) + ['--dry-run'] * args.dry_run
    for part in [] if args.tables else args.part:
        for network in args.network:
            if ONE_NETWORK.get(part, network) != network or part in done.get(network, ()):
                continue
            print(f'== {network}, {part}', flush=True)
            status = probe.main([*arguments_of(network, part, args.out), *more])
            if status not in (exit_codes.COMPLETED, exit_codes.DIVERGED):
                return status
    if not args.dry_run:
        print(tables(args.out))
    return exit_codes.COMPLETED


if __name__ == '__main__':
    sys.exit(main())
