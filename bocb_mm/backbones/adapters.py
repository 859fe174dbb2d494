"""What every backbone of the catalog has on top of the class it is built from.

:class:`Adapter` is mixed in before the source class (``class (ResNet family, mmpretrain.ResNet)``),
so that modules keep the source's names and published checkpoints fit. It adds the arguments that
MM users expect, with one meaning for all twenty networks.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bocb_mm.backbones.spec import BackboneSpec
from bocb_mm.errors import UserError


@dataclass(frozen=True)
class Options:
    """The checked arguments that every backbone takes; :func:`bocb_mm.backbones.build.build`."""

    spec: BackboneSpec
    out_indices: tuple[int, ...]
    frozen_stages: int = -1
    norm_eval: bool = False
    with_cp: bool = False
    drop_path_rate: float = 0.0
    init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None
    cifar: bool = False
    stem_stride: int = 1
    classifier: bool = False
    num_classes: int | None = None
    img_size: tuple[int, int] = (224, 224)


class Skip(nn.Module):
    """Stands where a stage was that no returned map needs, so that no weight lacks a gradient."""

    downsample = None  # Swin asks its stages for it

    def forward(self, x: Any, *others: Any, **_: Any) -> Any:
        """What came in."""
        return (x, *others) if others else x


class Adapter(nn.Module):
    """Base of the families in :mod:`bocb_mm.backbones.families`.

    Attributes:
        options: The arguments it was built with.
        channels: Channels of each returned map.
        strides: Stride of each returned map.
        frozen_stages: -1 for none, 0 for the stem, k for the stem and the first k stages.
    """

    # Groups of modules (or weights) by name, the stem first and then stage by stage. A name that
    # the network at hand lacks (a norm layer per map, say) is passed over.
    groups: ClassVar[tuple[tuple[str, ...], ...]]
    # The group that makes map 0. None: maps are not made by stages, no stage is ever unneeded.
    first_map_group: ClassVar[int | None] = 1
    # The smallest side of an image; the largest stride if that is more.
    smallest_picture: ClassVar[int] = 1
    # A classifier with layers inside may be tied to one image size.
    classifier_size: ClassVar[int | None] = None
    takes_drop_path: ClassVar[bool] = True
    # Recomputation and a norm layer for each returned map, where the source has them itself.
    native_checkpointing: ClassVar[bool] = False
    norm_per_map: ClassVar[bool] = False

    options: Options
    channels: Any
    strides: Any

    @classmethod
    def source(cls, options: Options) -> type[nn.Module]:
        """The class to build from; imports its library."""
        raise NotImplementedError

    @classmethod
    def arguments(cls, options: Options) -> dict[str, Any]:
        """The constructor's arguments of the source class that depend on the options."""
        if options.spec.droppable and cls.takes_drop_path:
            return dict(out_indices=options.out_indices, drop_path_rate=options.drop_path_rate)
        return dict(out_indices=options.out_indices)

    def adopt(self, options: Options) -> None:
        """Turn a freshly built source network into the backbone that was asked for."""
        self.options = options
        self.change(options)
        self._drop_unneeded_stages(max(options.out_indices))
        if options.with_cp and not self.native_checkpointing:
            for group in self.groups[1:]:
                for _, part in self._parts(group):
                    _checkpoint_blocks(part)
        spec, chosen = options.spec, options.out_indices
        self.channels = tuple(spec.channels[i] for i in chosen)
        strides = spec.strides
        if options.cifar and spec.cifar is not None:
            strides = tuple(s * options.stem_stride for s in spec.cifar.strides)
        self.strides = tuple(strides[i] for i in chosen)
        self.frozen_stages = options.frozen_stages
        self.norm_eval = options.norm_eval
        self._is_init = False
        self._freeze_stages()

    def change(self, options: Options) -> None:
        """What this family changes in the network: the CIFAR stem, stochastic depth, a pyramid."""

    # forward

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Maps (N, C, H/stride, W/stride) of images (N, 3, H, W); logits (N, classes) if inside.

        Raises:
            UserError: The images are too small, or not of the one size the network takes.
        """
        self._check_picture(x)
        out = self.maps(x)
        return (out,) if isinstance(out, Tensor) else tuple(out)

    def maps(self, x: Tensor) -> Any:
        """What the source class returns; a family that needs other maps overrides it."""
        return super().forward(x)  # type: ignore[misc]

    def _check_picture(self, x: Tensor) -> None:
        name, size = self.options.spec.name, tuple(x.shape[-2:])
        shown = f'{name} got images of {size[0]}x{size[1]} pixels'
        if self.options.spec.fixed_size and size != self.options.img_size:
            h, w = self.options.img_size
            raise UserError(
                f'{shown} but takes {h}x{w} only: it has weights for each place in the image; '
                f'resize them, or build it with img_size=({size[0]}, {size[1]}) and train it so'
            )
        if self.options.num_classes and self.classifier_size:
            side = self.classifier_size
            if size != (side, side):
                raise UserError(
                    f'{shown} but its classifier takes {side}x{side} only: resize the images'
                )
        least = max(self.smallest_picture, *self.strides)
        if min(size) < least:
            raise UserError(f'{shown}; each side must be at least {least}: resize or pad them')

    # frozen stages, norm statistics, recomputation

    def train(self, mode: bool = True) -> Any:
        """Training mode, but for what is frozen and, with ``norm_eval``, for batch norms."""
        super().train(mode)
        self._freeze_stages()
        if mode and getattr(self, 'norm_eval', False):
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self  # mmpretrain 1.2.0 returns None, and then `model.eval()(x)` fails

    def _freeze_stages(self) -> None:
        """Put frozen stages in evaluation mode and take their weights out of training.

        The source classes call this from constructors and ``train``, each with a meaning of
        its own; here it is the same for all.
        """
        if not hasattr(self, 'options'):  # the source's constructor is still running
            return
        for group in self.groups[: self.options.frozen_stages + 1]:
            for _, part in self._parts(group):
                if isinstance(part, nn.Module):
                    part.eval()
                    part.requires_grad_(False)
                elif part is not None:
                    part.requires_grad_(False)

    def _parts(self, group: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """The modules and weights of a group that the network has, with their names."""
        for name in group:
            owner, _, last = name.rpartition('.')
            try:
                yield name, getattr(self.get_submodule(owner), last)
            except AttributeError:
                continue

    def _drop_unneeded_stages(self, last: int) -> None:
        if self.first_map_group is None:
            return
        for group in self.groups[self.first_map_group + last + 1 :]:
            for name, _ in list(self._parts(group)):
                owner, _, attribute = name.rpartition('.')
                setattr(self.get_submodule(owner), attribute, Skip())

    def dropped_parts(self) -> list[str]:
        """Names of the parts that this network was built without; a file may have them."""
        last = max(self.options.out_indices)
        parts: list[str] = []
        if not self.options.classifier and len(self.options.spec.strides) != last + 1:
            first = 1 if self.first_map_group is None else self.first_map_group
            parts += [part for group in self.groups[first + last + 1 :] for part in group]
        return parts

    # weights at the start

    @property
    def is_init(self) -> bool:
        """Whether :meth:`init_weights` has run (mmengine asks)."""
        return self._is_init

    @is_init.setter
    def is_init(self, value: bool) -> None:
        self._is_init = value

    def init_weights(self) -> None:
        """Draw weights as the official code does; then do what ``init_cfg`` says."""
        if not hasattr(self, 'options'):  # our own networks' constructors call it
            super().init_weights()  # type: ignore[misc]
            return
        from bocb_mm.backbones.pretrained import split_init_cfg
        from bocb_mm.backbones.weights import load_pretrained

        self.start()
        pretrained, rest = split_init_cfg(self.options.init_cfg)
        if rest:
            from mmengine.model import initialize

            initialize(self, rest)
        for part in pretrained:
            load_pretrained(self, part['checkpoint'], prefix=part.get('prefix'))
        self._is_init = True

    def _dump_init_info(self, *_: Any) -> None:
        """Print nothing: mmengine would show three lines a weight when no model is around it."""

    def start(self) -> None:
        """The official initialisation; by default the source class's own."""
        self._is_init = False
        super().init_weights()  # type: ignore[misc]


@functools.cache
def _recomputed(block: type[nn.Module]) -> type[nn.Module]:
    """A subclass of ``block`` that stores its input only, and runs again in the backward pass."""
    from bocb_mm.backbones.hierarchical import batch_statistics_kept

    class Recomputed(block):  # type: ignore[misc, valid-type]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            if not (self.training and torch.is_grad_enabled()):
                return super().forward(*args, **kwargs)
            # DenseNet's layers take the list that later layers' outputs are appended to
            args = tuple(list(a) if isinstance(a, list) else a for a in args)
            return checkpoint(
                super().forward,
                *args,
                use_reentrant=False,
                context_fn=lambda: (contextlib.nullcontext(), batch_statistics_kept(self)),
                **kwargs,
            )

    Recomputed.__name__ = block.__name__
    return Recomputed


def _checkpoint_blocks(part: Any) -> None:
    """Let the blocks in ``part`` be recomputed; containers are entered, down to the blocks.

    The class of a block is swapped, not its ``forward``: a bound method would still point to the
    original after ``deepcopy``, which is how mmengine's EMA hook copies a model.
    """
    if not isinstance(part, nn.Module):
        return
    inner = getattr(part, 'blocks', getattr(part, 'block', part))  # Swin, timm; DenseNet
    if isinstance(inner, nn.Sequential | nn.ModuleList):
        for child in inner:
            _checkpoint_blocks(child)
    elif any(True for _ in part.parameters()):
        part.__class__ = _recomputed(type(part))  # type: ignore[arg-type]
