"""Is a backbone coupled to its optimizer, or is it just the learning rate? One command answers."""

from typing import TYPE_CHECKING, Any

from bocb_mm.probe.options import Options

if TYPE_CHECKING:
    from bocb_mm.probe.run import probe

__all__ = ['Options', 'probe']


def __getattr__(name: str) -> Any:
    """``probe`` when it is asked for: it imports the toolboxes, and a typo need not wait."""
    if name == 'probe':
        from bocb_mm.probe import run

        return run.probe
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
