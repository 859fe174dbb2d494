"""Data sets that need no download: scikit-learn's digits, scenes composed of them, stick figures.

Each generator writes a folder in a format that stock MM data sets read (class folders, COCO JSON).
"""

from bocb_mm.datasets.prepare import prepare_quickstart
from bocb_mm.datasets.transforms import OnTexture

__all__ = ['OnTexture', 'prepare_quickstart']
