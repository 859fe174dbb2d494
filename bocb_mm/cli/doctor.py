"""``bocb doctor``: versions of the stack, and what keeps RetinaNet from training here.

Each finding comes with the command that fixes it. Exit status 1 if the main job would fail.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from typing import Any

from bocb_mm import shipped
from bocb_mm.errors import one_line_errors

SETUP = 'tools/setup_env.sh'


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print what was found; 1 where the main job would fail."""
    parser = argparse.ArgumentParser(
        description='Print the versions of the stack and what of it or of the machine keeps '
        'RetinaNet from training, each with the command that fixes it.',
        epilog='Exit status: 1 if the main job would fail.',
    )
    parser.add_argument('--work-dir', default='work_dirs', help='where runs shall be written')
    arguments = parser.parse_args(argv)
    try:
        from bocb_mm import doctor
    except ImportError as error:
        print(
            f'error: {error}; the environment is not built: bash tools/setup_env.sh',
            file=sys.stderr,
        )
        return 1
    found = doctor.versions()
    print(f'{"python":<20}{platform.python_version()}')
    for name, version in found.items():
        print(f'{name:<20}{version or "not installed"}')
    problems = list(doctor.findings(found))
    if not any(finding.fatal for finding in problems):  # else the rest cannot be imported
        print_devices(doctor)
        problems += doctor.machine_findings(arguments.work_dir)
    for finding in problems:
        print(
            f'\n{"PROBLEM" if finding.fatal else "note"}: {finding.problem}\n  fix: {finding.fix}'
        )
    if any(SETUP in finding.fix for finding in problems) and not (shipped.root() / SETUP).exists():
        print(f'\n{SETUP} is a part of the checkout; without one: docs/install.md')
    fatal = sum(f.fatal for f in problems)
    print(f'\n{fatal} problem(s)' if fatal else '\nRetinaNet can train here.')
    return 1 if fatal else 0


def print_devices(doctor: Any) -> None:
    """What mmcv's operators are, and the GPUs."""
    import torch
    from mmcv.ops import get_compiler_version, get_compiling_cuda_version

    print(f'{"mmcv operators":<20}{get_compiler_version()}, CUDA {get_compiling_cuda_version()}')
    print(f'{"CUDA of torch":<20}{torch.version.cuda}; the driver runs {doctor.driver() or "none"}')
    gpus = [torch.cuda.get_device_name(device) for device in doctor.devices()[1:]]
    print(f'{"GPUs":<20}{", ".join(gpus) or "none: training runs on the CPU"}')


if __name__ == '__main__':
    sys.exit(main())
