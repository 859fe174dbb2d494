"""``xtcocotools.coco``: the reader of COCO annotations."""

from faster_coco_eval.core.coco import COCO

__all__ = ['COCO']
