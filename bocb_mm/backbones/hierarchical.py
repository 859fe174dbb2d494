"""What our own four-stage networks share: the loop over stages, the classifier, checkpointing.

Only torch is needed here, so that the networks serve plain PyTorch as well as the MM adapters.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bocb_mm.errors import UserError


class HierarchicalNet(nn.Module):
    """A network of four stages; an image goes in, a pyramid of maps or logits come out.

    A subclass registers its modules under the official names, and says in :meth:`stage_modules`
    which of them make up a stage and in :meth:`forward_stage` how one stage runs.

    Args:
        channels: Channels of the four stage outputs.
        strides: Image pixels per map pixel of the four stage outputs.
        num_classes: Classes of the classifier; ``None`` or 0 for none, which makes :meth:`forward`
            return the maps.
        out_indices: Stages whose maps are returned. Without a classifier the stages behind the last
            of them are not built, so that no parameter stays without a gradient.
        with_cp: Recompute each block in the backward pass instead of storing its activations.

    Attributes:
        channels: As given; also for the stages that are not built.
        strides: As given.
        num_stages: How many stages are built.
        min_size: Least height and width of an image.

    Raises:
        UserError: ``out_indices`` names a stage the network lacks.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int | None,
        out_indices: Sequence[int],
        with_cp: bool,
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.strides = tuple(strides)
        self.num_classes = num_classes or 0
        self.out_indices = _checked_indices(out_indices, len(self.channels), type(self).__name__)
        self.with_cp = with_cp
        self.num_stages = len(self.channels) if self.num_classes else max(self.out_indices) + 1
        self.min_size = self.strides[self.num_stages - 1]

    def stage_modules(self) -> tuple[tuple[nn.Module, ...], ...]:
        """The modules of each stage that is built, stem and downsampling first, in running order.

        Freezing the first ``n`` stages means freezing the modules of the first ``n`` tuples.
        """
        raise NotImplementedError

    def forward_stage(self, x: Tensor, index: int) -> Tensor:
        """Run stage ``index``; its result is what the next stage takes."""
        raise NotImplementedError

    def forward_feature(self, x: Tensor, index: int) -> Tensor:
        """What stage ``index`` shows to a neck or a head, made from what it hands on."""
        return x

    def forward_head(self, x: Tensor) -> Tensor:
        """Logits from what the last stage hands on."""
        raise NotImplementedError

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """The maps of the stages in ``out_indices``.

        Args:
            x: Images ``(N, in_channels, H, W)``; H and W need not be multiples of the strides.

        Returns:
            One map ``(N, channels[i], ceil(H / strides[i]), ceil(W / strides[i]))`` a stage.

        Raises:
            UserError: The image is smaller than the largest stride.
        """
        self._check_size(x)
        maps = []
        for index in range(max(self.out_indices) + 1):
            x = self.forward_stage(x, index)
            if index in self.out_indices:
                maps.append(self.forward_feature(x, index))
        return tuple(maps)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits ``(N, num_classes)`` with a classifier, else :meth:`forward_features`."""
        if not self.num_classes:
            return self.forward_features(x)
        self._check_size(x)
        for index in range(self.num_stages):
            x = self.forward_stage(x, index)
        return self.forward_head(x)

    def run_blocks(self, blocks: nn.Module, x: Tensor, *args: object) -> Tensor:
        """Run the ``blocks`` one after the other, each recomputed in backward if ``with_cp``."""
        for block in blocks:
            if self.with_cp and self.training and torch.is_grad_enabled():
                x = checkpoint(
                    block,
                    x,
                    *args,
                    use_reentrant=False,
                    context_fn=lambda block=block: (
                        contextlib.nullcontext(),
                        batch_statistics_kept(block),
                    ),
                )
            else:
                x = block(x, *args)
        return x

    def _check_size(self, x: Tensor) -> None:
        if min(x.shape[-2:]) < self.min_size:
            raise UserError(
                f'{type(self).__name__} got an image of {x.shape[-2]}x{x.shape[-1]} pixels; each '
                f'side must be at least {self.min_size}, its largest stride: resize or pad it'
            )


class EmbeddedStagesNet(HierarchicalNet):
    """A network whose stages are an embedding, blocks and a norm each, under the official names.

    Stage i is ``patch_embed<i>``, ``<blocks_name><i>`` and ``norm<i>``, counted from 1.
    """

    blocks_name: ClassVar[str]
    head: nn.Linear

    def add_stage(
        self, index: int, embed: nn.Module, blocks: Sequence[nn.Module], norm: nn.Module
    ) -> None:
        """Register the modules of stage ``index``."""
        self.add_module(f'patch_embed{index + 1}', embed)
        self.add_module(f'{self.blocks_name}{index + 1}', nn.ModuleList(blocks))
        self.add_module(f'norm{index + 1}', norm)

    def init_weights(self) -> None:
        """Draw convolutions and linear layers anew, as the official code does."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out_normal_(module)
            elif isinstance(module, nn.Linear):
                small_normal_(module)

    def stage_modules(self) -> tuple[tuple[nn.Module, ...], ...]:
        """Embedding, blocks and norm of each stage."""
        names = ('patch_embed', self.blocks_name, 'norm')
        return tuple(
            tuple(getattr(self, f'{name}{i + 1}') for name in names) for i in range(self.num_stages)
        )

    def forward_head(self, x: Tensor) -> Tensor:
        """Mean over the map, then the linear classifier."""
        return self.head(x.mean((2, 3)))


@contextlib.contextmanager
def batch_statistics_kept(module: nn.Module) -> Iterator[None]:
    """Within it, batch norms in ``module`` do not move their running statistics.

    A checkpointed block runs forward twice a step; only the first run may count.
    """
    norms = [
        m
        for m in module.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats and m.training
    ]
    # A momentum of 0, not `track_running_stats = False`: autograd would then save fewer tensors
    # than in the first run, which checkpoint refuses.
    kept = [(m.momentum, m.num_batches_tracked) for m in norms]
    for norm, (_, count) in zip(norms, kept):
        # A counter that does not count: SyncBatchNorm asks for one.
        norm.momentum, norm.num_batches_tracked = 0.0, None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept):
            norm.momentum, norm.num_batches_tracked = momentum, count


class DropPath(nn.Module):
    """Drop a residual branch of whole samples, and scale what is kept by 1 / (1 - rate).

    Source: Huang et al., "Deep networks with stochastic depth", ECCV 2016.

    Args:
        rate: Probability that a sample's branch is dropped in training, in [0, 1).

    Example:
        >>> DropPath(0.5).eval()(torch.ones(2, 3))
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise UserError(f'drop_path_rate {rate!r} is not a probability: give 0 <= rate < 1')
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with whole samples (first dimension) set to zero."""
        if not self.rate or not self.training:
            return x
        keep = 1 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        """The rate, for ``print(model)``."""
        return f'rate={self.rate:.3f}'


class ChannelLayerNorm(nn.Module):
    """Layer norm over the channels of every pixel of a map ``(N, C, H, W)``.

    Args:
        channels: C.
        eps: Added to the (biased) variance.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """The map with every pixel normalised."""
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Rates that grow linearly over all blocks, from 0 to ``rate`` at the last one.

    Example:
        >>> drop_path_rates(0.2, (1, 2))
        [[0.0], [0.1, 0.2]]
    """
    last = max(sum(depths) - 1, 1)
    starts = [sum(depths[:i]) for i in range(len(depths))]
    return [[rate * (s + k) / last for k in range(d)] for s, d in zip(starts, depths)]


def fan_out_normal_(conv: nn.Conv2d) -> None:
    """Weights ~ N(0, 2 / fan_out) with fan_out = kh * kw * out_channels / groups; bias 0."""
    fan_out = math.prod(conv.kernel_size) * conv.out_channels // conv.groups
    nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def small_normal_(layer: nn.Linear | nn.Conv2d, std: float = 0.02) -> None:
    """Weights as of :func:`truncated_normal_`; bias 0."""
    truncated_normal_(layer.weight, std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def truncated_normal_(weight: Tensor, std: float = 0.02) -> Tensor:
    """Fill ``weight`` from N(0, std²) cut at ±2, which is what ``trunc_normal_`` means by default.

    torch 2.9.1's ``nn.init.trunc_normal_`` (timm's likewise) inverts a float32 uniform draw, which
    is exactly -1 once in 2**24: that weight becomes -2, a hundred standard deviations. A network
    of 25 million weights has one such weight on the average; here it has none.
    """
    return weight.normal_(0, std).clamp_(-2, 2)


def _checked_indices(indices: Sequence[int], stages: int, name: str) -> tuple[int, ...]:
    wanted = [indices] if isinstance(indices, int) else list(indices)
    wrong = [i for i in wanted if not -stages <= i < stages]
    if wrong or not wanted:
        raise UserError(
            f'{name} has no stage {wrong}; out_indices={indices!r} must name stages of '
            f'0 to {stages - 1}'
        )
    return tuple(sorted({i % stages for i in wanted}))
