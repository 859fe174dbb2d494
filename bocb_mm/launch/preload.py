"""What the server imports that trainings are forked from: on one thread, and without computing.

See :func:`bocb_mm.launch.process.warm_up`.
"""

from __future__ import annotations

import gc
import importlib
import os
import traceback


def preload() -> None:
    """Import everything a training needs, and the toolboxes that are named; nothing without one.

    An import that fails is not the end: it fails again in the training, where its message is seen.
    """
    from bocb_mm.compat import quiet_pkg_resources

    quiet_pkg_resources()
    names = os.environ['BOCB_PRELOAD'].split()
    try:
        if not names:
            return
        import cv2
        import torch

        torch.set_num_threads(1)  # a pool of threads would not survive the fork
        cv2.setNumThreads(0)
        importlib.import_module('bocb_mm.launch.train')
        for name in names:
            utils = importlib.import_module(f'{name}.utils')
            if hasattr(utils, 'register_all_modules'):
                utils.register_all_modules(init_default_scope=False)
    except Exception:
        traceback.print_exc()
    finally:
        # What is imported is never collected; to look at it, and so to copy it, would cost every
        # forked training two seconds.
        gc.collect()
        gc.freeze()


if 'BOCB_PRELOAD' in os.environ:
    preload()
