#!/usr/bin/env python
"""`bocb quickstart` from a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an installation too

from bocb_mm.cli.quickstart import main

if __name__ == '__main__':
    sys.exit(main())
