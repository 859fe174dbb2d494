"""Any optimizer's state in shards: ZeRO, which mmengine offers for ``torch.optim`` alone."""

from __future__ import annotations

from typing import Any

from torch.distributed.optim import ZeroRedundancyOptimizer as TorchZero

from bocb_mm.optimizers.build import optimizer_builder
from bocb_mm.optimizers.strict import checked_params


class ZeroRedundancyOptimizer(TorchZero):
    """Each process keeps the state of its share of the parameters, and updates these.

    Stands in for mmengine's class of this name. Every parameter is whole in one process, so that
    trust ratios and factored moments are those of an unsharded run.

    Args:
        params: Parameters or groups.
        optimizer_type: Name of an optimizer, with or without the scope: ``'LARS'``,
            ``'bocb_mm.LARS'``, ``'timm.lion'``.
        **kwargs: Its arguments, and those of ``torch.distributed.optim.ZeroRedundancyOptimizer``.

    Raises:
        SettingError: ``max_grad_norm`` is not 0: a process would clip by the norm of its share.

    Example:
        >>> optimizer = dict(type='bocb_mm.ZeroRedundancyOptimizer', optimizer_type='LION', lr=1e-4)

    Source: Rajbhandari et al., ZeRO, SC 2020, stage 1.
    """

    def __init__(self, params: Any, optimizer_type: str, **kwargs: Any) -> None:
        builder: Any = optimizer_builder(optimizer_type)
        super().__init__(checked_params(params), builder, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        """The whole state in the first process, nothing in the others; all must call it."""
        self.consolidate_state_dict()
        return super().state_dict() if self.rank == 0 else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a whole state in each process; it is checked as by the optimizer itself."""
        super().load_state_dict(state_dict)
        self.optim.load_state_dict(self.optim.state_dict())
