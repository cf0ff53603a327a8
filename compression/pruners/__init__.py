"""Pruners: score x unit x rate, one family a file. A new one is one class with `@register("pruners")`."""

from .base import Pruner, View
from .levels import AutomatedGradualPruner, SparsityLevelParameterPruner
from .ranking import RankedStructurePruner
from .splicing import SplicingPruner
from .structures import (
    L1RankedStructureParameterPruner,
    L1RankedStructureParameterPruner_AGP,
    L2RankedStructureParameterPruner,
    L2RankedStructureParameterPruner_AGP,
    RandomLevelStructureParameterPruner,
)
from .thresholds import BaiduRNNPruner, MagnitudeParameterPruner, SensitivityPruner

__all__ = [
    "AutomatedGradualPruner",
    "BaiduRNNPruner",
    "L1RankedStructureParameterPruner",
    "L1RankedStructureParameterPruner_AGP",
    "L2RankedStructureParameterPruner",
    "L2RankedStructureParameterPruner_AGP",
    "MagnitudeParameterPruner",
    "Pruner",
    "RandomLevelStructureParameterPruner",
    "RankedStructurePruner",
    "SensitivityPruner",
    "SparsityLevelParameterPruner",
    "SplicingPruner",
    "View",
]
