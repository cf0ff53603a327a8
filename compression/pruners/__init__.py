"""Pruners: score x unit x rate, one family a file. A new one is one class with `@register("pruners")`."""

from .base import Pruner, View
from .gathering import (
    ActivationAPoZRankedFilterPruner,
    ActivationAPoZRankedFilterPruner_AGP,
    ActivationMeanRankedFilterPruner,
    ActivationMeanRankedFilterPruner_AGP,
    GradientRankedFilterPruner,
    GradientRankedFilterPruner_AGP,
)
from .global_magnitude import GlobalMagnitudePruner, GlobalMagnitudePruner_AGP, zero_smallest
from .levels import AutomatedGradualPruner, SparsityLevelParameterPruner
from .random_filters import (
    BernoulliFilterPruner,
    BernoulliFilterPruner_AGP,
    RandomRankedFilterPruner,
    RandomRankedFilterPruner_AGP,
)
from .ranking import RankedStructurePruner
from .reconstruction import FMReconstructionChannelPruner
from .regrowth import RigLPruner, SETPruner
from .semistructured import NMPruner
from .splicing import SplicingPruner
from .structure_thresholds import StructureParameterPruner
from .structures import (
    L1RankedStructureParameterPruner,
    L1RankedStructureParameterPruner_AGP,
    L2RankedStructureParameterPruner,
    L2RankedStructureParameterPruner_AGP,
    RandomLevelStructureParameterPruner,
)
from .thresholds import BaiduRNNPruner, MagnitudeParameterPruner, SensitivityPruner

__all__ = [
    "ActivationAPoZRankedFilterPruner",
    "ActivationAPoZRankedFilterPruner_AGP",
    "ActivationMeanRankedFilterPruner",
    "ActivationMeanRankedFilterPruner_AGP",
    "AutomatedGradualPruner",
    "BaiduRNNPruner",
    "BernoulliFilterPruner",
    "BernoulliFilterPruner_AGP",
    "FMReconstructionChannelPruner",
    "GlobalMagnitudePruner",
    "GlobalMagnitudePruner_AGP",
    "GradientRankedFilterPruner",
    "GradientRankedFilterPruner_AGP",
    "L1RankedStructureParameterPruner",
    "L1RankedStructureParameterPruner_AGP",
    "L2RankedStructureParameterPruner",
    "L2RankedStructureParameterPruner_AGP",
    "MagnitudeParameterPruner",
    "NMPruner",
    "Pruner",
    "RandomLevelStructureParameterPruner",
    "RandomRankedFilterPruner",
    "RandomRankedFilterPruner_AGP",
    "RankedStructurePruner",
    "RigLPruner",
    "SETPruner",
    "SensitivityPruner",
    "SparsityLevelParameterPruner",
    "SplicingPruner",
    "StructureParameterPruner",
    "View",
    "zero_smallest",
]
