"""The rules of operations: one small file per family. Importing this package registers them all."""

from . import conv, elementwise, fallback, join, linear, norm, other, pool, reduce, scatter, shape

__all__ = ["conv", "elementwise", "fallback", "join", "linear", "norm", "other", "pool", "reduce", "scatter", "shape"]
