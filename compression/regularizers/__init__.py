"""Regularizers: loss terms that draw weights or gates to zero. A new one is one class with `@register`."""

from .base import Ending, Regularizer, Site
from .elements import L1Regularizer, L2Regularizer
from .l0 import L0Regularizer
from .lasso import GroupLassoRegularizer
from .variance import GroupVarianceRegularizer

__all__ = [
    "Ending",
    "GroupLassoRegularizer",
    "GroupVarianceRegularizer",
    "L0Regularizer",
    "L1Regularizer",
    "L2Regularizer",
    "Regularizer",
    "Site",
]
