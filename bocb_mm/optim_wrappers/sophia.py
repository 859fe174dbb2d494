r"""Wrappers that give Sophia-G its Hessian: an extra pass every k updates with sampled labels.

Algorithm 3 of Liu et al. 2023 (arXiv:2305.14342): before update :math:`t = 0, k, 2k, \dots`

.. math:: \hat h = B \, \hat g \odot \hat g, \quad \hat g = \nabla_\theta \hat L(\hat y), \qquad
          h \leftarrow \beta_2 h + (1 - \beta_2) \hat h

with :math:`\hat y` drawn from the model's own output (:mod:`bocb_mm.optim_wrappers.hessian`) and B
the global batch size. ``docs/sophia.md`` has the rules for each kind of head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from mmengine import dist
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from bocb_mm.compat import accumulative_counts, batches_seen
from bocb_mm.errors import UserError
from bocb_mm.optim_wrappers.amp import AmpOptimWrapper
from bocb_mm.optim_wrappers.hessian import sampled_losses
from bocb_mm.registry import OPTIM_WRAPPERS

HESSIANS = ('auto', 'empirical-fisher')


class _HessianPasses(OptimWrapper):
    """Watches the training forward and updates the Hessian before every k-th step.

    The data comes from a forward pre-hook that sits on the model for the length of a training
    forward, so a config needs nothing but the wrapper's type. The extra pass leaves no trace: the
    training gradients, the buffers (batch-norm statistics) and the random state are put back.

    The precision comes from the class it is mixed with: ``autocast`` and ``scale_for_backward``.
    """

    def __init__(self, hessian_interval: int = 10, hessian: str = 'auto', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not callable(getattr(self.optimizer, 'update_hessian', None)):
            raise UserError(
                f'{type(self).__name__}: {type(self.optimizer).__name__} has no update_hessian(); '
                "use optimizer=dict(type='bocb_mm.Sophia') or the plain OptimWrapper"
            )
        if isinstance(hessian_interval, bool) or hessian_interval != max(int(hessian_interval), 1):
            raise UserError(f'hessian_interval={hessian_interval!r}: expected an integer above 0')
        if hessian not in HESSIANS:
            raise UserError(f'hessian={hessian!r}: expected one of {", ".join(HESSIANS)}')
        self.hessian_interval = int(hessian_interval)
        self.hessian = hessian
        # Sophia(hessian='none') asks for the sign momentum that it is without a Hessian.
        self._off = getattr(self.optimizer, 'hessian', None) == 'none'
        self.hessian_kind: str | None = 'none' if self._off else None
        self.hessian_updates = 0
        self._call: tuple[nn.Module, tuple[Any, ...], dict[str, Any]] | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The parent's context; before an update with a new Hessian it notes what is forwarded."""
        update = batches_seen(self) // accumulative_counts(self)
        refresh = not self._off and self.should_sync() and update % self.hessian_interval == 0
        with super().optim_context(model):
            if not refresh:
                yield
                return

            def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                self._call = (module, args, kwargs)

            handle = model.register_forward_pre_hook(note, with_kwargs=True)
            try:
                yield
            finally:
                handle.remove()

    def step(self, **kwargs: Any) -> None:
        """Update the Hessian every ``hessian_interval`` steps, then step."""
        if self._call is not None:
            (model, args, options), self._call = self._call, None
            self._update_hessian(model, args, options)
        super().step(**kwargs)

    def _update_hessian(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        parameters = [p for g in self.optimizer.param_groups for p in g['params']]
        training = [p.grad for p in parameters]
        batch = _global_sum(_batch_size(args, kwargs), parameters[0].device)
        try:
            kind = None
            if self.hessian == 'auto' and self.hessian_kind != 'empirical-fisher':
                for p in parameters:
                    p.grad = None
                kind = self._sampled_gradients(model, args, kwargs, parameters, batch)
            if kind is None:
                kind = 'empirical-fisher'
                batch *= accumulative_counts(self)
                inverse = self.scale_for_backward(torch.ones((), device=parameters[0].device))[1]
                for p, gradient in zip(parameters, training):
                    p.grad = None if gradient is None else gradient * inverse
            self._say(kind, batch)
            gradients = [p.grad for p in parameters if p.grad is not None]
            if bool(torch.nn.utils.get_total_norm(gradients, math.inf).isfinite()):
                self.optimizer.update_hessian(batch_size=batch)
                self.hessian_updates += 1
        finally:
            for p, gradient in zip(parameters, training):
                p.grad = gradient

    def _sampled_gradients(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        parameters: list[nn.Parameter],
        batch: int,
    ) -> str | None:
        """Put the gradient of the sampled loss into ``.grad`` and say what was sampled."""
        module = getattr(model, 'module', model)
        device = parameters[0].device
        generator = torch.Generator(device)
        generator.manual_seed(self._seed())
        no_sync = getattr(model, 'no_sync', nullcontext)
        with _untouched(module), no_sync(), torch.enable_grad():
            with sampled_losses(module, generator) as sampled, self.autocast():
                losses = module(*args, **kwargs)
            if sampled.total is None:
                return None
            # / sqrt(B / ranks): with the mean over ranks and the factor B of update_hessian this
            # is the module docstring's h, and for cross entropy the gradient of the sampled mean.
            per_rank = batch / dist.get_world_size()
            scaled, inverse = self.scale_for_backward(sampled.total / math.sqrt(per_rank))
            scaled.backward()
            left = [p for p in parameters if p.grad is None and p.requires_grad]
            self._actual_gradients(module, losses, left)
        _average_over_ranks(parameters)
        for p in parameters:
            if p.grad is not None:
                p.grad.mul_(inverse)
        kind = f'gauss-newton-bartlett ({", ".join(sorted(sampled.kinds))})'
        return f'{kind}; empirical-fisher for {len(left)} tensors' if left else kind

    def _actual_gradients(self, module: Any, losses: Any, left: list[nn.Parameter]) -> None:
        """Gradients of the true loss for what the sampled one does not reach (box regression)."""
        if not left or not isinstance(losses, dict):
            return
        total, _ = module.parse_losses(losses)
        if not total.requires_grad:
            return
        scaled, _ = self.scale_for_backward(total)
        for p, gradient in zip(left, torch.autograd.grad(scaled, left, allow_unused=True)):
            p.grad = gradient

    def _seed(self) -> int:
        """Differs by update and rank, so that ranks draw independently; the same after a resume."""
        return (
            torch.initial_seed() + 1_000_003 * self._inner_count + 7_919 * dist.get_rank()
        ) % 2**63

    def _say(self, kind: str, batch: int) -> None:
        if kind != self.hessian_kind:
            self.hessian_kind = kind
            text = f'Sophia: Hessian {kind}, every {self.hessian_interval} updates, batch {batch}'
            print_log(text, logger='current')


def _batch_size(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    for value in (kwargs.get('inputs'), *args[:1], kwargs.get('data_samples')):
        if value is not None and hasattr(value, '__len__'):
            first = next(iter(value.values())) if isinstance(value, dict) else value
            return len(first)
    raise UserError(
        'SophiaOptimWrapper: the model was called without `inputs`, so the batch size is unknown; '
        'use the plain OptimWrapper'
    )


def _global_sum(n: int, device: torch.device) -> int:
    if dist.get_world_size() == 1:
        return n
    total = torch.tensor(n, device=device)
    dist.all_reduce(total, op='sum')
    return int(total)


def _average_over_ranks(parameters: list[nn.Parameter]) -> None:
    """Mean of the gradients over ranks, as DDP does it; a missing one counts as zero."""
    if dist.get_world_size() == 1:
        return
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    dist.all_reduce_params([p.grad for p in parameters], op='mean')


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Put buffers and random state back afterwards."""
    buffers = [(b, b.detach().clone()) for b in module.buffers()]
    devices = sorted({b.device.index for b in module.parameters() if b.is_cuda})
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)


@OPTIM_WRAPPERS.register_module()
class SophiaOptimWrapper(_HessianPasses):
    """OptimWrapper for ``bocb_mm.Sophia``.

    Args:
        hessian_interval: k, updates between two Hessian estimates.
        hessian: ``'auto'`` samples labels where the head's loss allows it and else takes the
            empirical Fisher; ``'empirical-fisher'`` squares the training gradient (no extra pass).
        **kwargs: Arguments of mmengine's OptimWrapper (``optimizer``, ``accumulative_counts``,
            ``clip_grad``).

    Attributes:
        hessian_kind: What was used, e.g. ``'gauss-newton-bartlett (categorical)'``; None before
            the first update.
        hessian_updates: How many estimates went into the optimizer.

    Raises:
        UserError: The optimizer has no ``update_hessian``, or an argument is out of range.

    Example:
        >>> optim_wrapper = dict(
        ...     type='bocb_mm.SophiaOptimWrapper',
        ...     optimizer=dict(type='bocb_mm.Sophia', lr=1e-4, weight_decay=0.1),
        ... )
    """

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the extra forward."""
        return nullcontext()

    def scale_for_backward(self, loss: Tensor) -> tuple[Tensor, float]:
        """``loss`` as it goes into the backward, and the factor that undoes its scale."""
        return loss, 1.0


@OPTIM_WRAPPERS.register_module()
class SophiaAmpOptimWrapper(_HessianPasses, AmpOptimWrapper):
    """:class:`SophiaOptimWrapper` under mixed precision; arguments of both parents.

    The gradients of the extra pass are unscaled before the optimizer squares them, and an estimate
    that is not finite is left out.
    """
