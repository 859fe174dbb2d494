"""The 20 optimizers of the paper in plain PyTorch: catalog, builder and classes."""

from bocb_mm.optimizers.adabelief import AdaBelief
from bocb_mm.optimizers.adabound import AdaBound
from bocb_mm.optimizers.adafactor import AdaFactor
from bocb_mm.optimizers.adamp import AdamP
from bocb_mm.optimizers.adan import Adan
from bocb_mm.optimizers.build import build_optimizer, catalog_table, get_spec, list_optimizers
from bocb_mm.optimizers.lamb import LAMB
from bocb_mm.optimizers.lars import LARS
from bocb_mm.optimizers.lion import LION
from bocb_mm.optimizers.novograd import NovoGrad
from bocb_mm.optimizers.sgdp import SGDP
from bocb_mm.optimizers.sophia import Sophia
from bocb_mm.optimizers.spec import CATEGORIES, RECIPES, Default, OptimizerSpec
from bocb_mm.optimizers.torch_based import (
    SGD,
    AdaDelta,
    AdaGrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    RAdam,
    RMSProp,
)

__all__ = [
    'CATEGORIES',
    'LAMB',
    'LARS',
    'LION',
    'RECIPES',
    'SGD',
    'SGDP',
    'AdaBelief',
    'AdaBound',
    'AdaDelta',
    'AdaFactor',
    'AdaGrad',
    'Adam',
    'AdamP',
    'AdamW',
    'Adamax',
    'Adan',
    'Default',
    'NAdam',
    'NovoGrad',
    'OptimizerSpec',
    'RAdam',
    'RMSProp',
    'Sophia',
    'build_optimizer',
    'catalog_table',
    'get_spec',
    'list_optimizers',
]
