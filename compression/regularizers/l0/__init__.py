"""L0 gates (hard concrete) on coupled channels: the regularizer and its parts."""

from .regularizer import L0Regularizer

__all__ = ["L0Regularizer"]
