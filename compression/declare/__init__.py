"""What the author of a pruner or a regularizer imports: types of arguments, names, checks, the registry."""

from .arguments import (
    Count,
    Fraction,
    Levels,
    Names,
    NonNegative,
    ParameterNames,
    Positive,
    Range,
    Sensitivities,
    Strengths,
    StructureGroup,
)
from .cross_checks import Complaint, apart
from .names import UnknownName, resolve, resolve_mapping
from .registry import register, registered

__all__ = [
    "Complaint",
    "Count",
    "Fraction",
    "Levels",
    "Names",
    "NonNegative",
    "ParameterNames",
    "Positive",
    "Range",
    "Sensitivities",
    "Strengths",
    "StructureGroup",
    "UnknownName",
    "apart",
    "register",
    "registered",
    "resolve",
    "resolve_mapping",
]
