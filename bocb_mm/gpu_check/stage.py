"""One stage, in a process of its own: ``python -m bocb_mm.gpu_check.stage NAME ...``."""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import time
from pathlib import Path

from bocb_mm.gpu_check.report import Report, Settings


def main() -> int:
    """Run the stage; its rows go to ``NAME.jsonl`` in the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument('name')
    parser.add_argument('--device', required=True)
    parser.add_argument('--folder', type=Path, required=True)
    parser.add_argument('--root', type=Path, required=True)
    parser.add_argument('--seconds', type=float, required=True)
    args = parser.parse_args()
    # A little before the limit, so that a stage with much to do can say what it left out.
    deadline = time.monotonic() + args.seconds - 5
    settings = Settings(args.device, args.folder / args.name, args.root, deadline)
    shutil.rmtree(settings.folder, ignore_errors=True)  # of an earlier call
    settings.folder.mkdir(parents=True)
    module = importlib.import_module(f'bocb_mm.gpu_check.{args.name}')
    with (args.folder / f'{args.name}.jsonl').open('w', encoding='utf-8') as file:
        module.run(Report(args.name, file), settings)
    return 0


if __name__ == '__main__':
    sys.exit(main())
