"""Regularizers: loss terms that draw weights or gates to zero. A new one is one class with `@register`."""

from .base import Regularizer
from .lasso import GroupLassoRegularizer, L1Regularizer

__all__ = ["GroupLassoRegularizer", "L1Regularizer", "Regularizer"]
