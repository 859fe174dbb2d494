"""``python -m bocb_mm.cli``: the command ``bocb``."""

import sys

from bocb_mm.cli.main import main

if __name__ == '__main__':
    sys.exit(main())
