"""The site builds without a warning, and has a page for every row of the catalogs."""

import os
import subprocess
import sys

from bocb_mm.backbones import list_backbones
from bocb_mm.optimizers import list_optimizers


def test_the_site_builds_with_a_page_for_every_row(root, tmp_path):
    done = subprocess.run(
        ['bash', root / 'tools' / 'build_site.sh', tmp_path],
        env=os.environ | {'PYTHON': sys.executable, 'PYTHONPATH': str(root)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for kind, names in (('optimizers', list_optimizers()), ('backbones', list_backbones())):
        pages = {page.stem for page in (tmp_path / 'generated' / kind).glob('*.html')}
        assert pages == set(names)
