"""What ``tools/release_check.sh`` leaves alone; what it checks takes minutes and is run by hand."""

import os
import subprocess


def test_nothing_that_was_there_is_deleted(root, tmp_path):
    kept = tmp_path / 'mine' / 'precious.txt'
    kept.parent.mkdir()
    kept.touch()
    done = subprocess.run(
        ['bash', str(root / 'tools' / 'release_check.sh'), str(kept.parent)],
        env={**os.environ, 'UV': '/bin/false'}, capture_output=True,
    )  # fmt: skip
    assert done.returncode and list(kept.parent.iterdir()) == [kept]
