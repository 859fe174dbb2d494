"""Work-arounds for faults of the packages below us: one function each, with version and symptom.

Nothing here happens on import; tools and hooks call what they need.
"""

from __future__ import annotations


def allow_mmengine_checkpoints() -> None:
    """Let plain ``torch.load`` read mmengine's own checkpoints, safely.

    mmengine 0.10.7 on torch >= 2.6: ``Runner.resume`` raises ``UnpicklingError: Weights only load
    failed ... Unsupported global: mmengine.logging.history_buffer.HistoryBuffer``, because
    torch.load now reads weights only and mmengine stores a history of logged values beside them.
    The types that it stores are allowed, for the whole process; nothing else is.
    """
    import torch

    from bocb_mm.checkpoints import safe_globals

    torch.serialization.add_safe_globals(safe_globals())
