"""How much a structure matters: scores of the rows of a (structures, elements) matrix; the lowest are pruned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

Score = Callable[[Tensor], Tensor]
Magnitude = Literal["l1", "l2"]


def l1(structures: Tensor) -> Tensor:
    """Return the mean absolute value of each structure."""
    return structures.abs().mean(1)


def l2(structures: Tensor) -> Tensor:
    """Return the Euclidean norm of each structure over its number of elements."""
    return structures.norm(dim=1) / structures.shape[1]


def largest(structures: Tensor) -> Tensor:
    """Return the largest absolute value of each structure."""
    return structures.abs().amax(1)


MAGNITUDES: dict[str, Score] = {"l1": l1, "l2": l2}
SIZES: dict[str, Score] = {"Max": largest, "Mean_Abs": l1}
"""The sizes that thresholds of structures compare, by the names of `threshold_criteria`."""
