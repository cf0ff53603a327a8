"""How much a structure matters: scores of the rows of a (structures, elements) matrix; the lowest are pruned."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Score = Callable[[Tensor], Tensor]


def l1(structures: Tensor) -> Tensor:
    """Mean absolute value of each structure."""
    return structures.abs().mean(1)


def l2(structures: Tensor) -> Tensor:
    """Euclidean norm of each structure over its number of elements."""
    return structures.norm(dim=1) / structures.shape[1]
