#!/usr/bin/env python
"""Check results/*.csv before a pull request; docs/results.md has the rules."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an installation too

from bocb_mm.report.shared_check import main

if __name__ == '__main__':
    sys.exit(main())
