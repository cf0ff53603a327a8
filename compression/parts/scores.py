"""How much a structure matters: scores of the rows of a (structures, elements) matrix; the lowest are pruned."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
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


def mean_by_number(count: int, scored: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the mean score (float64, on the CPU) of each number below `count`; inf where it has none.

    Args:
        count: how many numbers there are.
        scored: pairs of numbers and their scores.
    """
    total, members = torch.zeros(2, count, dtype=torch.float64, device="cpu")
    for numbers, scores in scored:
        # In double precision: scores of float32 layers would otherwise tie or not by the order of the sum.
        total.index_add_(0, numbers, scores.detach().double().cpu())
        members += numbers.bincount(minlength=count)
    return torch.where(members > 0, total / members, torch.inf)


MAGNITUDES: dict[str, Score] = {"l1": l1, "l2": l2}
SIZES: dict[str, Score] = {"Max": largest, "Mean_Abs": l1}
"""The sizes that thresholds of structures compare, by the names of `threshold_criteria`."""
