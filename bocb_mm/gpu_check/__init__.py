"""Every path that differs on a GPU, run and compared with the CPU: ``python tools/gpu_check.py``.

A stage is a module with ``run(report, settings)`` and a row in :mod:`bocb_mm.gpu_check.stages`; it
runs in a process of its own with a limit, and writes one JSON line a check. With ``--device cpu``
all stages run on a CPU in small, so that they are tested where there is no GPU.
"""
