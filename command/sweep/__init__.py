"""Sweeps: one training for each value of a schedule, from one dense network, into one folder; then a table."""

from .mode import Result
from .points import Point, variants
from .python import sweep

__all__ = ["Point", "Result", "sweep", "variants"]
