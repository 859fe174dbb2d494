"""Make the paper's tables, figures and rankings from runs, CSV tables or its own numbers.

python tools/bocb_report.py work_dirs --out report
python tools/bocb_report.py --paper --out report
python tools/bocb_report.py work_dirs --paper --recommend R-50 --task detection
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bocb_mm.report.cli import main

if __name__ == '__main__':
    sys.exit(main())
