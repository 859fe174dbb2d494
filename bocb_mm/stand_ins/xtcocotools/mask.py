"""``xtcocotools.mask``: run-length encoded masks."""

from faster_coco_eval.core.mask import area, decode, encode, frPyObjects, iou, merge, toBbox

__all__ = ['area', 'decode', 'encode', 'frPyObjects', 'iou', 'merge', 'toBbox']
