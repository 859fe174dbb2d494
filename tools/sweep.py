#!/usr/bin/env python
"""Search learning rate x weight decay for pairs of config and optimizer; docs/sweep.md.

python tools/sweep.py create|work|status|best|import STUDY ...
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an installation too

from bocb_mm.cli.sweep import main

if __name__ == '__main__':
    sys.exit(main())
