#!/usr/bin/env python
"""Print the versions of the stack, each known conflict and the command that fixes it.

Exit status 1 if something will not work.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bocb_mm.errors import one_line_errors


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
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
    if found['torch']:
        import torch

        devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        print(f'{"CUDA devices":<20}{devices or "none: training runs on the CPU"}')
    problems = list(doctor.findings(found))
    for finding in problems:
        print(
            f'\n{"PROBLEM" if finding.fatal else "note"}: {finding.problem}\n  fix: {finding.fix}'
        )
    fatal = sum(f.fatal for f in problems)
    print(f'\n{fatal} problem(s)' if fatal else '\nEverything that is installed fits together.')
    return 1 if fatal else 0


if __name__ == '__main__':
    sys.exit(main())
