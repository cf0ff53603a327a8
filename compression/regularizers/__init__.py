"""Regularizers: loss terms that draw weights or gates to zero. A new one is one class with `@register`."""

from .base import Ending, Regularizer, Site
from .l0 import L0Regularizer
from .lasso import GroupLassoRegularizer, L1Regularizer

__all__ = ["Ending", "GroupLassoRegularizer", "L0Regularizer", "L1Regularizer", "Regularizer", "Site"]
