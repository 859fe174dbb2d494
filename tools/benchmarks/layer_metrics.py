#!/usr/bin/env python
"""Time, memory and parity of the layer metrics beside WeightWatcher, in one run.

python tools/benchmarks/layer_metrics.py [--parity FILE ...] [--out FILE.md]
In parts: ... --keep FILE.json --networks VGG-13-BN --peers weightwatcher, then ... --keep FILE.json
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

NETWORKS = {
    'ResNet-50': ('torchvision', 'resnet50'),
    'DeiT-S': ('timm', 'deit_small_patch16_224'),
    'Swin-T': ('torchvision', 'swin_t'),
    'ConvNeXt-T': ('torchvision', 'convnext_tiny'),
    'VGG-13-BN': ('torchvision', 'vgg13_bn'),
}
PEERS = ('native', 'native float64', 'weightwatcher')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--networks', nargs='+', default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument(
        '--checkpoint',
        nargs='+',
        default=[],
        metavar='NAME=FILE',
        help='trained weights of a network, for the model as built here',
    )
    parser.add_argument(
        '--parity',
        nargs='+',
        default=[],
        metavar='FILE',
        help='compare alpha on these checkpoints of any network too',
    )
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--peers', nargs='+', default=list(PEERS), choices=PEERS)
    parser.add_argument(
        '--keep', metavar='FILE.json', help='measurements so far: none of them is made again'
    )
    parser.add_argument('--out', help='Markdown file')
    parser.add_argument('--one', nargs=2, metavar=('NETWORK', 'PEER'), help=argparse.SUPPRESS)
    return parser.parse_args(argv)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    weights = dict(pair.split('=', 1) for pair in args.checkpoint)
    if args.one:
        print(json.dumps(run_one(*args.one, weights, args.repeats)))
        return 0
    results = measured(args)
    if any(len(found) < len(PEERS) for found in results.values()):
        return 0
    text = report(results, weights)
    if args.parity:
        text += parity(args.parity)
    print(text)
    if args.out:
        Path(args.out).write_text(text, encoding='utf-8')
    return 0


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """What each peer took on each network, those of earlier calls with the same file included."""
    keep = Path(args.keep) if args.keep else None
    kept = json.loads(keep.read_text(encoding='utf-8')) if keep and keep.exists() else {}
    for network in args.networks:
        found = kept.setdefault(network, {})
        for peer in args.peers:
            if peer not in found:
                found[peer] = in_own_process(args, network, peer)
                print(network, peer, f'{found[peer]["seconds"]:.2f} s', flush=True)
                if keep:
                    keep.write_text(json.dumps(kept), encoding='utf-8')
    return {network: kept[network] for network in args.networks}


def in_own_process(args: argparse.Namespace, network: str, peer: str) -> dict[str, Any]:
    """Each peer in a process of its own: peak memory and BLAS settings stay apart."""
    command = [sys.executable, __file__, '--one', network, peer, '--repeats', str(args.repeats)]
    if args.checkpoint:
        command += ['--checkpoint', *args.checkpoint]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def build(network: str, weights: dict[str, str]) -> Any:
    """The network, with the weights of a checkpoint or random ones of seed 0."""
    import torch

    library, name = NETWORKS[network]
    torch.manual_seed(0)
    if library == 'timm':
        import timm

        model = timm.create_model(name)
    else:
        import torchvision

        model = torchvision.models.get_model(name)
    if network in weights:
        from bocb_mm.metrics.weights import state_dict_of

        model.load_state_dict(state_dict_of(weights[network]))
    return model


def run_one(network: str, peer: str, weights: dict[str, str], repeats: int) -> dict[str, Any]:
    import torch

    from bocb_mm.metrics import layer_metrics
    from bocb_mm.metrics.weightwatcher import analyze, contained

    def measure() -> dict[str, float]:
        if peer == 'weightwatcher':
            return {name: float(row['alpha']) for name, row in analyze(model).items()}
        precision = 'float64' if peer.endswith('float64') else 'auto'
        frame = layer_metrics(model, precision=precision, split_qkv=False)
        return dict(zip(frame['layer'], frame['alpha'].astype(float)))

    model = build(network, weights)
    with contained():
        import weightwatcher  # noqa: F401
    load = os.getloadavg()[0] if hasattr(os, 'getloadavg') else math.nan
    start = reset_peak()
    warm_up()
    first = peak() - start
    before = reset_peak()
    seconds, cpu, alphas = [], [], {}
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        alphas = measure()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    largest = max(p.numel() * p.element_size() for p in model.parameters() if p.dim() > 1)
    return {
        'peer': peer,
        'repeats': repeats,
        'seconds': statistics.median(seconds),
        'cpu': statistics.median(cpu),
        'memory': 1 + (peak() - before) / largest,
        'first': first / 1e6,
        'largest': largest / 1e6,
        'load': load,
        'alphas': alphas,
        'threads': torch.get_num_threads(),
    }


def warm_up() -> None:
    """Load the libraries' code with layers too small to matter: what they keep is small as well."""
    import torch
    from torch import nn

    from bocb_mm.metrics import layer_metrics

    convolutions = nn.Conv2d(3, 64, 7), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3, groups=64)
    model = nn.Sequential(*convolutions, nn.Linear(64, 64))
    for precision in ('auto', 'float64'):
        layer_metrics(model, precision=precision)
    torch.linalg.svdvals(torch.randn(64, 64))


def reset_peak() -> int:
    """Give freed memory back, count the peak anew where the kernel can; bytes resident now."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    clear = Path('/proc/self/clear_refs')
    if clear.exists():
        clear.write_text('5')
    return peak()


def peak() -> int:
    status = Path('/proc/self/status')
    if status.exists():
        line = next(t for t in status.read_text().splitlines() if t.startswith('VmHWM'))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def line(network: str, found: dict[str, Any]) -> str:
    ours, exact, theirs = (found[p] for p in PEERS)
    both = [k for k in theirs['alphas'] if k in ours['alphas']]
    gap = [max(abs(o['alphas'][k] / theirs['alphas'][k] - 1) for k in both) for o in (exact, ours)]
    cells = [
        network,
        *(f'{p["seconds"]:.2f} ({p["cpu"]:.2f})' for p in (theirs, ours)),
        *(f'{ours[c] / theirs[c]:.2f}' for c in ('seconds', 'cpu')),
        f'{exact["seconds"]:.2f} ({exact["cpu"]:.2f})',
        f'{len(both)} of {len(ours["alphas"])}',
        *(f'{g:.1e}' for g in gap),
        *(f'{p["memory"]:.1f}' for p in (ours, theirs)),
        f'{ours["largest"]:.1f}',
        f'{100 * ours["seconds"]:.0f}',
    ]
    return '| ' + ' | '.join(cells) + ' |'


def parity(files: list[str]) -> str:
    """A table of alpha against WeightWatcher's on trained checkpoints."""
    import numpy as np

    from bocb_mm.metrics import layer_metrics

    lines = [
        '\n## Trained checkpoints\n',
        "Alpha of every layer both cover, ours against WeightWatcher's. Medians: over the layers",
        'where alpha means something.\n',
        '| checkpoint | layers both cover | median alpha | gap, float64 | gap, auto |',
        '|---|---|---|---|---|',
    ]
    for file in files:
        theirs, exact, ours = (
            layer_metrics(file, split_qkv=False, **how)
            for how in ({'backend': 'weightwatcher'}, {'precision': 'float64'}, {})
        )
        both = np.isfinite(theirs['alpha']) & np.isfinite(ours['alpha'])
        gaps = [(f['alpha'] / theirs['alpha'] - 1).abs()[both].max() for f in (exact, ours)]
        path = Path(file)
        cells = [
            '/'.join(path.parts[-3:]),
            f'{both.sum()} of {len(ours)}',
            f'{ours.loc[ours["eligible"], "alpha"].median():.2f}',
            *(f'{g:.1e}' for g in gaps),
        ]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'


COLUMNS = (
    'network', 'WeightWatcher, alpha: s (CPU s)', 'ours, all indicators: s (CPU s)', 'ratio of s',
    'ratio of CPU s', 'ours in float64: s (CPU s)', 'layers both cover', 'gap of alpha, float64',
    'gap of alpha, auto', 'memory, ours', 'memory, WeightWatcher', 'largest layer, MB',
    'under 1 % of an epoch over (s)',
)  # fmt: skip

NOTES = """
The gap is the largest relative difference from WeightWatcher's alpha over the layers both cover.
Memory is the peak during the measurement (all repeats), in sizes of the largest layer, that layer
included; before it, libraries are warmed up and freed memory is given back. CPU seconds are summed
over the threads; on a busy machine they say more than the clock. A snapshot takes less than 1 % of
an epoch that is longer than the last column.
"""


def report(results: dict[str, Any], weights: dict[str, str]) -> str:
    import numpy
    import scipy
    import torch

    def total(peer: str, clock: str) -> float:
        return sum(r[peer][clock] for r in results.values())

    runs = [run for found in results.values() for run in found.values()]
    load = max(run['load'] for run in runs)
    first = max(run['first'] for run in runs if run['peer'] != 'weightwatcher')
    trained = f'trained: {", ".join(weights)}; others ' if weights else ''
    head = (
        'Made by `python tools/benchmarks/layer_metrics.py`: all peers in one run, each in a '
        f'process of its own, median of {min(run["repeats"] for run in runs)}.\n'
        f'{platform.machine()}, {runs[0]["threads"]} threads; load average before a peer at most '
        f'{load:.1f}, the peer before it included; '
        f'torch {torch.__version__}, numpy {numpy.__version__}, scipy {scipy.__version__}, '
        f'weightwatcher 0.7.7.\nWeights: {trained}random, seed 0 (trained ones have other '
        'spectra); fused qkv left whole, as WeightWatcher has it.\n'
    )
    table = '\n'.join(
        ['| ' + ' | '.join(COLUMNS) + ' |', '|---' * len(COLUMNS) + '|']
        + [line(network, found) for network, found in results.items()]
    )
    sums = '; '.join(
        f'{p} {total(p, "seconds"):.2f} s ({total(p, "cpu"):.2f} CPU s)' for p in PEERS
    )
    ratios = [total('native', c) / total('weightwatcher', c) for c in ('seconds', 'cpu')]
    return (
        f'# Layer metrics: time, memory and parity\n\n{head}\n{table}\n\n'
        f'Over the {len(results)} together: {sums}; ratio {ratios[0]:.2f} ({ratios[1]:.2f} of CPU '
        f's).\n{NOTES}The first snapshot of a process takes {first:.0f} MB more, once: code and '
        'buffers\nof the libraries, which stay.\n'
    )


if __name__ == '__main__':
    sys.exit(main())
