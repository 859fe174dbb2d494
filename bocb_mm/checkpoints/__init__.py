"""Checkpoints: read without running code, written whole or not at all, downloaded, rotated."""

from bocb_mm.checkpoints.read import load_checkpoint

__all__ = ['load_checkpoint']
