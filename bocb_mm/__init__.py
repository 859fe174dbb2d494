"""bocb_mm: backbone-optimizer coupling bias (BOCB) on the OpenMMLab stack.

Importing this package imports neither torch nor mmengine, so that reports can be read on a laptop.
The parts: :mod:`bocb_mm.optimizers`, :mod:`bocb_mm.backbones`, :mod:`bocb_mm.metrics`,
:mod:`bocb_mm.search`, :mod:`bocb_mm.report`. In an MM config, ``type='bocb_mm.<name>'`` is enough.
"""

from bocb_mm.stand_ins import install as _install_stand_ins

_install_stand_ins()

__version__ = '0.1.0'
