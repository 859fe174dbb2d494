"""Optimizer wrappers and the parameter-group constructor, registered in scope ``bocb_mm``.

==================================  ==========================================================
``bocb_mm.OptimWrapperConstructor``  few groups by role, the same for every optimizer
``bocb_mm.AmpOptimWrapper``          mixed precision on CPU and GPU, bf16 and fp16
``bocb_mm.SophiaOptimWrapper``       Sophia-G's Hessian passes (``docs/sophia.md``)
``bocb_mm.SophiaAmpOptimWrapper``    the same under mixed precision
:func:`param_groups`                 the groups in plain PyTorch
:class:`StepTimer`                   time of ``optimizer.step()`` without slowing it
==================================  ==========================================================
"""

from bocb_mm.optim_wrappers.amp import AmpOptimWrapper
from bocb_mm.optim_wrappers.constructor import OptimWrapperConstructor
from bocb_mm.optim_wrappers.param_groups import GroupRules, Half, param_groups
from bocb_mm.optim_wrappers.schedule_free import ScheduleFreeSwitch
from bocb_mm.optim_wrappers.sophia import SophiaAmpOptimWrapper, SophiaOptimWrapper
from bocb_mm.optim_wrappers.timing import StepTimer

__all__ = [
    'AmpOptimWrapper',
    'GroupRules',
    'Half',
    'OptimWrapperConstructor',
    'ScheduleFreeSwitch',
    'SophiaAmpOptimWrapper',
    'SophiaOptimWrapper',
    'StepTimer',
    'param_groups',
]
