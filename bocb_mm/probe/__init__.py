"""Is a backbone coupled to its optimizer, or is it just the learning rate? One command answers."""

from bocb_mm.probe.options import Options
from bocb_mm.probe.run import probe

__all__ = ['Options', 'probe']
