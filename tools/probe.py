#!/usr/bin/env python
"""Is my backbone coupled to its optimizer, or is it just the learning rate? docs/probe.md.

python tools/probe.py CONFIG | --backbone NAME [--data FOLDER] --out DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an installation too

from bocb_mm.cli.probe import main

if __name__ == '__main__':
    sys.exit(main())
