"""Time, kernels and memory of an optimizer step, ours beside those of the libraries.

Usage::

    python tools/benchmarks/optimizer_step.py                # writes docs/optimizers_benchmark.md
    python tools/benchmarks/optimizer_step.py --only LARS LAMB --rounds 5 --out /dev/stdout
    python tools/benchmarks/optimizer_step.py --compile --only LION --out /dev/stdout   # minutes

All contestants of one optimizer and fused AdamW take turns in random order, so that a busy machine
slows them alike: compare ratios. A compiled step has a process of its own, as in a training.
Gradients are random, weight decay is on, every group has the same settings.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm.optim
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bocb_mm.optimizers as optimizers
from bocb_mm.errors import one_line_errors

SETTINGS = {'lr': 1e-3, 'weight_decay': 1e-2}
# The same algorithm in the libraries: name there, and the arguments that make it the same.
# pytorch_optimizer's LAMB is another one: no bias correction, no clipping, decay outside the ratio.
TORCH = {
    'SGD': ('SGD', {'momentum': 0.9}),
    'Adam': ('Adam', {}),
    'Adamax': ('Adamax', {}),
    'NAdam': ('NAdam', {}),
    'AdamW': ('AdamW', {}),
    'RAdam': ('RAdam', {'decoupled_weight_decay': True}),
    'AdaGrad': ('Adagrad', {}),
    'AdaDelta': ('Adadelta', {}),
    'RMSProp': ('RMSprop', {}),
}
TIMM = {
    'SGDP': ('sgdp', {'momentum': 0.9}),
    'LION': ('lion', {}),
    'LAMB': ('lamb', {}),
    'AdamP': ('adamp', {}),
    'Adan': ('adan', {}),
    'LARS': ('lars', {'momentum': 0.9}),
    'AdaFactor': ('adafactor', {'scale_parameter': False}),
    'AdaBelief': ('adabelief', {'eps': 1e-8, 'rectify': False}),
    'NovoGrad': ('novograd', {}),
}
OTHER = {
    'SGDP': ('sgdp', {'momentum': 0.9}),
    'LION': ('lion', {}),
    'Adamax': ('adamax', {}),
    'RAdam': ('radam', {}),
    'AdamP': ('adamp', {}),
    'Adan': ('adan', {}),
    'AdaBound': ('adabound', {}),
    'LARS': ('lars', {}),
    'AdaFactor': (
        'adafactor',
        {'betas': (None, 0.999), 'scale_parameter': False, 'relative_step': False},
    ),
    'AdaBelief': ('adabelief', {'eps': 1e-8}),
    'NovoGrad': ('novograd', {}),
    'AdaDelta': ('adadelta', {}),
}


CLOCKS = [time.perf_counter]  # the last one is read

MODELS = {'ResNet-50': 'resnet50', 'DeiT-S': 'deit_small_patch16_224'}  # as timm calls them
MUONS = ('Muon', 'NorMuon')


class Kernels(TorchDispatchMode):
    """Counts operations on more than one element, without those that make a view only."""

    count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Count and pass on."""
        out = function(*args, **(kwargs or {}))
        aliases = [a.alias_info for a in function._schema.returns]
        view = any(a is not None and not a.is_write for a in aliases)
        leaves = tree_leaves((args, kwargs, out))
        self.count += not view and any(
            isinstance(leaf, torch.Tensor) and leaf.numel() > 1 for leaf in leaves
        )
        return out


def shapes_of(model: str) -> list[torch.Size]:
    """Shapes of all parameters of one of :data:`MODELS`."""
    with torch.device('meta'):
        return [p.shape for p in timm.create_model(MODELS[model]).parameters()]


def make_parameters(shapes: list[torch.Size]) -> list[torch.nn.Parameter]:
    """Random parameters with random gradients."""
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(s) * 0.05) for s in shapes]
    for p in parameters:
        p.grad = torch.randn_like(p) * 0.01
    return parameters


def contestants(name: str) -> dict[str, Callable[[Any], torch.optim.Optimizer]]:
    """Builders by label: ours, and what the libraries have of the same algorithm."""

    def ours(**how: Any) -> Callable[[Any], torch.optim.Optimizer]:
        return lambda params: optimizers.build_optimizer(name, params, **SETTINGS, **how)

    found = {'ours': ours(), 'ours foreach': ours(foreach=True)}
    if name in MUONS:
        return found | muons(name)
    if name in TORCH:
        key, more = TORCH[name]
        cls = getattr(torch.optim, key)
        found['torch loop'] = lambda p: cls(p, foreach=False, **SETTINGS, **more)
        found['torch foreach'] = lambda p: cls(p, foreach=True, **SETTINGS, **more)
        if name in ('SGD', 'Adam', 'AdamW', 'AdaGrad'):
            found['torch fused'] = lambda p: cls(p, fused=True, **SETTINGS, **more)
    if name in TIMM:
        timm_key, timm_more = TIMM[name]
        timm_cls = timm.optim.get_optimizer_class(timm_key, bind_defaults=False)
        found['timm'] = lambda p: timm_cls(p, **SETTINGS, **timm_more)
    if name in OTHER:
        from pytorch_optimizer import load_optimizer

        other_key, other_more = OTHER[name]
        other_cls = load_optimizer(other_key)
        found['pytorch_optimizer'] = lambda p: other_cls(p, **SETTINGS, **other_more)
        found['pytorch_optimizer loop'] = lambda p: other_cls(
            p, **SETTINGS, **{**other_more, 'foreach': False}
        )
    return found


def muons(name: str) -> dict[str, Callable[[Any], Any]]:
    """The libraries' relatives of a matrix optimizer; AdamW has what is no matrix, as in ours."""
    from pytorch_optimizer import load_optimizer
    from timm.optim.muon import Muon

    def halves(params: Any, **rest: Any) -> list[dict[str, Any]]:
        matrices = [p for p in params if p.dim() > 1]
        return [
            {'params': matrices, 'use_muon': True, **SETTINGS},
            {'params': [p for p in params if p.dim() < 2], **SETTINGS, **rest},
        ]

    other = load_optimizer(name.lower())
    found: dict[str, Callable[[Any], Any]] = {
        'pytorch_optimizer': lambda p: other(halves(p, use_muon=False)),
        'pytorch_optimizer loop': lambda p: other(halves(p, use_muon=False), foreach=False),
    }
    if name == 'Muon':
        found['torch loop'] = TorchMuon
        found['timm'] = lambda p: Muon(halves(p, use_fallback=True), ns_coefficients='original')
    return found


class TorchMuon:
    """torch's Muon on matrices, which a kernel has to be seen as, and its fused AdamW."""

    def __init__(self, params: Any) -> None:
        views = []
        for p in (p for p in params if p.dim() > 1):
            views.append(torch.nn.Parameter(p.detach().flatten(1)))
            views[-1].grad = p.grad.flatten(1)
        rest = [p for p in params if p.dim() < 2]
        self.halves = [
            torch.optim.Muon(views, **SETTINGS),
            torch.optim.AdamW(rest, fused=True, **SETTINGS),
        ]

    def step(self) -> None:
        """A step of both."""
        for half in self.halves:
            half.step()


def milliseconds(steps: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median time of each, taking turns in another order every round.

    In a fixed order each would find in the cache what the same other one left.
    """
    taken: dict[str, list[float]] = {label: [] for label in steps}
    order, shuffle = list(steps), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for label in order:
            start = CLOCKS[-1]()
            steps[label]()
            taken[label].append(1e3 * (CLOCKS[-1]() - start))
    return {label: statistics.median(times) for label, times in taken.items()}


def peak_extra(
    build: Callable[[Any], torch.optim.Optimizer], parameters: list[torch.nn.Parameter]
) -> int:
    """Most that an optimizer and its first three steps take beyond its state, in bytes.

    What it keeps between steps counts too.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        optimizer = build(parameters)
        for _ in range(3):
            optimizer.step()
    current = peak = 0
    events = profile.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == '[memory]'), key=lambda e: e.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    state = tree_leaves(list(optimizer.state.values()))
    return peak - sum(leaf.nbytes for leaf in state if isinstance(leaf, torch.Tensor))


def measure(
    name: str, parameters: list[torch.nn.Parameter], rounds: int, threads: list[int]
) -> dict[str, Any]:
    """Everything about one optimizer; times by number of threads."""
    size = sum(p.numel() * p.element_size() for p in parameters)
    fused = torch.optim.AdamW(parameters, fused=True, **SETTINGS)
    built = {label: build(parameters) for label, build in contestants(name).items()}
    row: dict[str, Any] = {'name': name}
    steps = {'AdamW fused': fused.step} | {k: v.step for k, v in built.items()}
    row['ms'] = times(steps, rounds, threads)
    for label in built:
        with Kernels() as counter:
            built[label].step()
        row[f'kernels {label}'] = counter.count
    for label, build in contestants(name).items():
        if label.startswith('ours'):
            row[label.replace('ours', 'memory')] = peak_extra(build, parameters) / size
    return row


def measure_compiled(
    name: str, parameters: list[torch.nn.Parameter], rounds: int, threads: list[int]
) -> dict[str, Any]:
    """The compiled step beside fused AdamW."""
    fused = torch.optim.AdamW(parameters, fused=True, **SETTINGS)
    ours = optimizers.build_optimizer(name, parameters, **SETTINGS, compile=True)
    start = time.perf_counter()
    ours.step()
    ours.step()
    row: dict[str, Any] = {'name': name, 'seconds': time.perf_counter() - start}
    row['ms'] = times({'AdamW fused': fused.step, 'compiled': ours.step}, rounds, threads)
    return row


def measure_one(
    name: str, model: str, rounds: int, threads: list[int], compiled: bool
) -> dict[str, Any]:
    """Everything about one optimizer on the parameters of ``model``, or its compiled step."""
    warnings.simplefilter('ignore')
    parameters = make_parameters(shapes_of(model))
    return (measure_compiled if compiled else measure)(name, parameters, rounds, threads)


def alone(*task: Any) -> dict[str, Any]:
    """:func:`measure_one` in a process of its own.

    In one that has compiled others before, the same compiled step takes up to 3% longer.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
        return pool.submit(measure_one, *task).result()


def times(
    steps: dict[str, Callable[[], Any]], rounds: int, threads: list[int]
) -> dict[int, dict[str, float]]:
    """Median milliseconds by number of threads and label."""
    found = {}
    for count in threads:
        torch.set_num_threads(count)
        for step in steps.values():
            step()
            step()
        found[count] = milliseconds(steps, rounds)
    return found


PEERS = ['torch loop', 'torch foreach', 'torch fused', 'timm', 'pytorch_optimizer']


def table(rows: list[dict[str, Any]], threads: int) -> str:
    """The results with one number of threads as Markdown."""
    head = ['optimizer', 'ours', 'ours foreach', *PEERS]
    head += ['ours / peer', 'ours / fused AdamW', 'memory', 'memory foreach']
    lines = []
    for row in rows:
        ms = row['ms'][threads]
        both = {k: v for k, v in ms.items() if k.startswith('pytorch_optimizer')}
        # PyTorch's nine run PyTorch's own step: what is asked of them is to add nothing to it.
        own = {'torch loop'} if row['name'] in TORCH else {'timm', *both}
        rivals = [v for k, v in ms.items() if k in own]
        cells = [row['name']]
        for label in head[1 : len(PEERS) + 3]:
            best = min(both, key=both.__getitem__) if both and label in both else label
            text = f'{ms[best]:.1f}' if best in ms else ''
            if f'kernels {label}' in row:
                text += f' / {row[f"kernels {label}"]}'
            cells.append(text)
        cells.append(f'{ms["ours"] / min(rivals):.2f}' if rivals else 'no peer')
        cells.append(f'{ms["ours"] / ms["AdamW fused"]:.2f}')
        cells += [f'{row["memory"]:.2f}', f'{row["memory foreach"]:.2f}']
        lines.append(cells)
    return markdown(head, lines)


def compiled_table(rows: list[dict[str, Any]], threads: int) -> str:
    """Compiled steps as Markdown."""
    lines = []
    for row in rows:
        ours, fused = (row['ms'][threads][k] for k in ('compiled', 'AdamW fused'))
        cells = [row['name'], f'{ours:.1f}', f'{fused:.1f}', f'{ours / fused:.2f}']
        lines.append([*cells, f'{row["seconds"]:.0f}'])
    return markdown(['optimizer', 'compiled', 'fused AdamW', 'ratio', 'first two steps, s'], lines)


def markdown(head: list[str], lines: list[list[str]]) -> str:
    """A table."""
    return '\n'.join('| ' + ' | '.join(r) + ' |' for r in [head, ['---'] * len(head), *lines])


NOTES = '<!-- written by hand from here on -->'


def page(tables: dict[str, str], rounds: int, old: Path) -> str:
    """The page for the docs; what stands below :data:`NOTES` in the old one is kept."""
    parts = [
        '# Time, kernels and memory of an optimizer step',
        f'Written by `tools/benchmarks/optimizer_step.py` (torch {torch.__version__}, timm '
        f'{version("timm")}, pytorch_optimizer {version("pytorch_optimizer")}, '
        f'medians of {rounds} rounds in which all contestants take turns in random order, '
        f'load average at its end {os.getloadavg()[0]:.1f}). '
        f'Cells: ms{" of CPU time" if len(CLOCKS) > 1 else ""} / operations '
        'on more than one element, without views. `ours` is the '
        "device's default. `pytorch_optimizer`: the "
        'faster of its two modes, operations of its default. Peer: the fastest of timm and '
        'pytorch_optimizer; of the optimizers that PyTorch has, its own class as it runs by '
        'default, a loop. Memory: the most beyond the state in '
        'three steps, what is kept between them included, in sizes of the parameters.',
    ]
    for title, text in tables.items():
        parts += [f'## {title}', text]
    kept = old.read_text(encoding='utf-8').partition(NOTES)[2] if old.is_file() else ''
    return '\n\n'.join([*parts, NOTES]) + (kept or '\n')


@one_line_errors
def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', type=Path, default=Path('docs/optimizers_benchmark.md'))
    parser.add_argument('--only', nargs='+', metavar='NAME', help='optimizers to measure')
    parser.add_argument('--models', nargs='+', default=list(MODELS), choices=MODELS)
    parser.add_argument('--rounds', type=int, default=11)
    parser.add_argument('--threads', type=int, nargs='+', default=[torch.get_num_threads()])
    parser.add_argument(
        '--compile', action='store_true', help='compile=True beside fused AdamW instead (minutes)'
    )
    parser.add_argument(
        '--cpu-time', action='store_true', help='time of the processor, which others do not take'
    )
    args = parser.parse_args()
    if args.cpu_time:
        CLOCKS.append(time.process_time)
    names = [optimizers.get_spec(n).name for n in args.only or optimizers.list_optimizers()]
    run, as_table = (alone, compiled_table) if args.compile else (measure_one, table)
    tables = {}
    for model in args.models:
        rows = []
        for name in names:
            rows.append(run(name, model, args.rounds, args.threads, args.compile))
            for count, ms in rows[-1]['ms'].items():
                print(model, name, count, {k: round(v, 1) for k, v in ms.items()}, flush=True)
        for count in args.threads:
            tables[f'{model}, CPU threads: {count}'] = as_table(rows, count)
    args.out.write_text(page(tables, args.rounds, args.out), encoding='utf-8')


if __name__ == '__main__':
    main()
