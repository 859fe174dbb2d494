"""ZeroRedundancyOptimizer by the catalog's names: each process keeps a share of the state."""

from __future__ import annotations

from typing import Any

from torch.distributed.optim import ZeroRedundancyOptimizer as _Zero

from bocb_mm.errors import UserError
from bocb_mm.optim_wrappers.schedule_free import is_schedule_free
from bocb_mm.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class ZeroRedundancyOptimizer(_Zero):
    """Divide the optimizer's state, whole parameters at a time, over the processes (ZeRO stage 1).

    As mmengine's class of that name, which knows the names of torch.optim only. Norms of whole
    tensors, as LARS takes them, stay right, because no tensor is split.

    Args:
        params: Parameters or groups.
        optimizer_type: Any name of the catalog or of the libraries: ``'LARS'``, ``'timm.muon'``.
        **kwargs: The optimizer's own arguments.

    Raises:
        UserError: Clipping by the norm of all gradients (``max_grad_norm``), of which a process
            sees its share only, Sophia, whose Hessian is made for all parameters, or a
            schedule-free optimizer, whose average each process has of its share only.

    Example:
        >>> optimizer = dict(type='bocb_mm.ZeroRedundancyOptimizer', optimizer_type='LARS', lr=0.1)

    Source: Rajbhandari et al., arXiv 1910.02054; torch.distributed.optim.
    """

    def __init__(self, params: Any, optimizer_type: str, **kwargs: Any) -> None:
        kind = OPTIMIZERS.get(optimizer_type)
        if kind.__name__ == 'Sophia':
            raise UserError(
                'ZeroRedundancyOptimizer(optimizer_type=Sophia): its Hessian needs all parameters '
                'in every process; train it without ZeroRedundancyOptimizer'
            )
        super().__init__(params, kind, **kwargs)
        if is_schedule_free(self.optim):
            raise UserError(
                f'ZeroRedundancyOptimizer(optimizer_type={optimizer_type}): the average that is '
                'evaluated and saved would be of a share of the parameters; train it without '
                'ZeroRedundancyOptimizer'
            )
        if self.world_size > 1 and any(g.get('max_grad_norm') for g in self.optim.param_groups):
            raise UserError(
                f'ZeroRedundancyOptimizer: {optimizer_type}(max_grad_norm=...) needs the norm of '
                'all gradients, of which a process has a share; set max_grad_norm=0 and clip '
                'before the step: optim_wrapper clip_grad=dict(max_norm=...)'
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a whole state in each process; the optimizer checks its share as it checks its own.

        Raises:
            StateError: It belongs to another optimizer, or to parameters of other shapes.
        """
        super().load_state_dict(state_dict)
        self.optim.load_state_dict(self.optim.state_dict())
