"""Pruners: score x unit x rate, one family a file. A new one is one class with `@register("pruners")`."""

from .base import Pruner, View
from .levels import AutomatedGradualPruner, SparsityLevelParameterPruner
from .structures import L1RankedStructureParameterPruner, L1RankedStructureParameterPruner_AGP, RankedStructurePruner

__all__ = [
    "AutomatedGradualPruner",
    "L1RankedStructureParameterPruner",
    "L1RankedStructureParameterPruner_AGP",
    "Pruner",
    "RankedStructurePruner",
    "SparsityLevelParameterPruner",
    "View",
]
