"""Data sets that need no download: scikit-learn's digits, scenes composed of them, stick figures.

Each generator writes a folder in a format that stock MM data sets read (class folders, COCO JSON).
Beside them the transforms of this package, of one image and of a whole batch on its device.
"""

from bocb_mm.datasets.batch_transforms import BatchRandomErasing, BatchRandomResizedCrop
from bocb_mm.datasets.prepare import prepare_quickstart
from bocb_mm.datasets.transforms import OnTexture

__all__ = ['BatchRandomErasing', 'BatchRandomResizedCrop', 'OnTexture', 'prepare_quickstart']
