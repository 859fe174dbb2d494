"""Write what the compiled packages give, once, for the tests of the stand-ins.

    MMCV_OPS=1 bash tools/setup_env.sh && .venv/bin/python tests/stand_ins/make_golden.py

``operators.npz``: every case of ``cases.py`` by mmcv 2.1.0's compiled operators on a CPU.
``keypoints.json``: average precision by xtcocotools 1.14.3 of the sets in ``keypoints.py``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import cases  # noqa: E402
import keypoints  # noqa: E402


def main() -> None:
    import mmcv._ext
    import xtcocotools

    for module in (mmcv._ext, xtcocotools):
        if 'site-packages' not in str(module.__file__):
            sys.exit(
                f'error: {module.__name__} is a stand-in here; MMCV_OPS=1 bash tools/setup_env.sh'
            )
    arrays = {
        f'{name}/{key}': compact(value)
        for name, call in cases.CASES.items()
        for key, value in call().items()
    }
    np.savez_compressed(HERE / 'golden' / 'operators.npz', **arrays)
    stats = {name: evaluate() for name, evaluate in keypoints.CASES.items()}
    (HERE / 'golden' / 'keypoints.json').write_text(json.dumps(stats, indent=1) + '\n')


def compact(value: object) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(np.int32) if array.dtype == np.int64 else array


if __name__ == '__main__':
    main()
