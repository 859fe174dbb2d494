"""Throughput and memory of our own networks against the same networks written the plain way.

    OMP_NUM_THREADS=1 python tools/benchmarks/backbones.py    # images a second, at 224x224
    python tools/benchmarks/backbones.py --memory 800x1333    # peak memory of one forward

The plain way is what the official modules do with torch's operators: every branch a convolution of
its own, the 3x3 neighbourhood copied nine times, one softmax over a concatenation, the position
bias gathered at once; `--pairs` runs TransNeXt's position MLP on every pair of pixels as well. Both
forms have the same weights, and their outputs are compared before any time is taken. Time is CPU
time, so that other jobs on the machine do not count: with one thread it is what a clock would show.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from bocb_mm.backbones import moganet, transnext, transnext_attention, unireplknet
from bocb_mm.backbones.transnext_attention import Grid

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    'MogaNet': moganet.MogaNet,
    'UniRepLKNet': unireplknet.UniRepLKNet,
    'TransNeXt': transnext.TransNeXt,
}


def plain_decomposition(self: Any, x: Tensor, common: Tensor) -> Tensor:
    return x + self.scale * (x - common)


def sum_of_branches(self: Any, x: Tensor) -> Tensor:
    return sum(norm(conv(x)) for conv, norm in self.pairs())  # type: ignore[return-value]


def plain_response_norm(self: Any, t: Tensor) -> Tensor:
    norm = torch.norm(t, p=2, dim=(1, 2), keepdim=True)
    return (self.gamma * (norm / (norm.mean(-1, keepdim=True) + 1e-6)) + 1) * t + self.beta


def pair_bias(self: Any, grid: Grid) -> Tensor:
    """The position bias ``(heads, queries, keys)``; the MLP on every pair if ``PAIRS``."""
    rows = grid.row_index[:, None, :, None]
    columns = grid.column_index[None, :, None, :]
    rows, columns = (t.flatten() for t in torch.broadcast_tensors(rows, columns))
    if PAIRS:
        offsets = torch.stack((grid.rows[rows], grid.columns[columns]), 1)
        flat = self.cpb_fc2(F.relu(self.cpb_fc1(offsets)))
    else:
        offsets = torch.cartesian_prod(grid.rows, grid.columns)
        flat = self.cpb_fc2(F.relu(self.cpb_fc1(offsets)))[rows * len(grid.columns) + columns]
    return flat.view(grid.size[0] * grid.size[1], -1, self.heads).permute(2, 0, 1)


def unfolded_attention(self: Any, x: Tensor, grid: Grid, bias_grid: Grid | None = None) -> Tensor:
    n, length, c = x.shape
    h, d = self.heads, self.head_channels

    def heads(t: Tensor) -> Tensor:
        return t.reshape(n, -1, h, d).transpose(1, 2)

    query = F.normalize(heads(self.q(x)), dim=-1)
    scale = F.softplus(self.temperature) * grid.log_keys.view(1, -1, 1)
    scaled = (query + self.query_embedding) * scale
    key, value = self.kv(x).chunk(2, -1)
    key = F.normalize(heads(key), dim=-1).transpose(1, 2).reshape(n, length, c)
    maps = torch.cat((key, value), -1).transpose(1, 2).unflatten(2, grid.size)
    copies = F.unfold(maps, 3, padding=1).view(n, 2, h, d, 9, length).permute(1, 0, 2, 5, 3, 4)
    local = (scaled[..., None, :] @ copies[0]).squeeze(-2) + self.relative_pos_bias_local[:, None]
    local = local + grid.outside.flatten(1).T
    pooled = F.adaptive_avg_pool2d(
        F.gelu(self.sr(x.transpose(1, 2).unflatten(2, grid.size))), grid.pooled
    )
    key, value = self.kv(self.norm(pooled.flatten(2).transpose(1, 2))).chunk(2, -1)
    far = scaled @ F.normalize(heads(key), dim=-1).transpose(-1, -2) + pair_bias(self, grid)
    near, far = torch.cat((local, far), -1).softmax(-1).split((9, far.shape[-1]), -1)
    near = near + query @ self.learnable_tokens + self.learnable_bias
    y = (near[..., None, :] @ copies[1].transpose(-1, -2)).squeeze(-2) + far @ heads(value)
    return self.proj(y.transpose(1, 2).reshape(n, length, c))


PAIRS = False
PLAIN: list[tuple[type, Callable[..., Tensor]]] = [
    (moganet.Decomposition, plain_decomposition),
    (unireplknet.DilatedReparamConv, sum_of_branches),
    (unireplknet.GlobalResponseNorm, plain_response_norm),
    (transnext_attention.AggregatedAttention, unfolded_attention),
]


@contextlib.contextmanager
def written(form: str) -> Iterator[None]:
    """Within it the modules run as ``'ours'`` or the ``'plain'`` way."""
    kept = [(cls, cls.forward) for cls, _ in PLAIN]
    try:
        for cls, forward in PLAIN if form == 'plain' else ():
            cls.forward = forward
        yield
    finally:
        for cls, forward in kept:
            cls.forward = forward


def build(name: str) -> nn.Module:
    """The network with scales of 0.05, so that every part of a block shows in the output."""
    torch.manual_seed(0)
    net = NETWORKS[name](num_classes=1000)
    for key, p in net.named_parameters():
        if key.rsplit('.')[-1] in ('gamma', 'beta', 'scale', 'layer_scale_1', 'layer_scale_2'):
            nn.init.constant_(p, 0.05)
    return net


def infer(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net.eval()(x)


def train(net: nn.Module, x: Tensor) -> Tensor:
    net.zero_grad()
    net.train()(x).square().mean().backward()
    return x


def throughput(name: str, work: Callable[..., Any], x: Tensor, repeats: int) -> dict[str, float]:
    """Images per CPU second of both forms, the best of ``repeats`` turns taken alternately."""
    net, best = build(name), {'ours': float('inf'), 'plain': float('inf')}
    for turn in range(repeats + 1):
        for form in best:
            with written(form):
                start = time.process_time()
                work(net, x)
                taken = time.process_time() - start
            if turn:  # the first one warms up
                best[form] = min(best[form], taken)
    return {form: len(x) / taken for form, taken in best.items()}


def peak_memory(name: str, form: str, size: tuple[int, int]) -> None:
    """Print time and peak memory of one forward of one image, run in a process of its own."""
    net, x = build(name), torch.randn(1, 3, *size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.process_time()
    with written(form):
        infer(net, x)
    taken = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f'{name:12} {form:6} {taken:7.2f} CPU-s  peak {peak:6.2f} GiB ({before:.2f} before)',
        flush=True,
    )


def main() -> None:
    global PAIRS
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('networks', nargs='*', default=list(NETWORKS), help='default: all three')
    parser.add_argument('--size', type=int, default=224, help='side of the images')
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--pairs', action='store_true', help='position MLP on every pair of pixels')
    parser.add_argument('--forms', nargs='+', default=['ours', 'plain'], choices=['ours', 'plain'])
    parser.add_argument('--memory', metavar='HxW', help='measure peak memory instead')
    parser.add_argument('--here', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    PAIRS = args.pairs
    print(f'torch {torch.__version__}, CPU, {torch.get_num_threads()} threads', flush=True)
    if args.memory and args.here:
        height, width = map(int, args.memory.split('x'))
        return peak_memory(args.networks[0], args.forms[0], (height, width))
    for name in args.networks:
        if args.memory:
            for form in args.forms:
                extra = ['--pairs'] if PAIRS else []
                command = [sys.executable, __file__, name, '--forms', form, '--here', *extra]
                subprocess.run([*command, '--memory', args.memory], check=True)
            continue
        x = torch.randn(args.batch, 3, args.size, args.size)
        outputs = []
        for form in ('ours', 'plain'):
            with written(form):
                outputs.append(infer(build(name), x))
        torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-4 * outputs[0].abs().max().item())
        for work in (infer, train):
            rate = throughput(name, work, x, args.repeats)
            print(
                f'{name:12} {work.__name__:6} ours {rate["ours"]:6.2f} img/CPU-s, plain '
                f'{rate["plain"]:6.2f} img/CPU-s, ratio {rate["ours"] / rate["plain"]:.2f}',
                flush=True,
            )
    return None


if __name__ == '__main__':
    main()
