"""A layer's time as a function of its widths, fitted to measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from potstill.thinning import on_cpu

from .layers import Case
from .table import LatencyTable

PARTS = (0.25, 0.5, 0.75, 1.0)
"""Parts of a layer's channels, on either side, in which it is measured."""


@dataclass(frozen=True)
class Cost:
    """Milliseconds of a layer: `fixed + by_input x inputs + by_output x outputs + by_both x inputs x outputs`.

    No term is negative: a narrower layer never counts as slower, as odd widths are now and then.
    """

    fixed: float = 0.0
    by_input: float = 0.0
    by_output: float = 0.0
    by_both: float = 0.0

    def at(self, inputs: int, outputs: int) -> float:
        """Return the time in these widths."""
        return self.fixed + self.by_input * inputs + self.by_output * outputs + self.by_both * inputs * outputs

    def __add__(self, other: Cost) -> Cost:
        """Return the time of both calls."""
        return Cost(
            self.fixed + other.fixed,
            self.by_input + other.by_input,
            self.by_output + other.by_output,
            self.by_both + other.by_both,
        )


def cost_of(cases: Sequence[Case], table: LatencyTable) -> Cost:
    """Return the time of all calls of one layer."""
    return sum((_fitted(case, table) for case in cases), Cost())


def _fitted(case: Case, table: LatencyTable) -> Cost:
    """Return the bilinear function nearest to what was measured, by relative least squares without negative terms."""
    widths = list(case.widths(PARTS))
    times = torch.tensor([table.milliseconds(case, *pair) for pair in widths], dtype=torch.float64)
    terms = [[1, 0, outputs, 0] if case.depthwise else [1, i, outputs, i * outputs] for i, outputs in widths]
    # Each row divided by its time: of a narrow layer a tenth is as far off as of a wide one.
    return Cost(*_least_squares(torch.tensor(terms, dtype=torch.float64) / times[:, None]).tolist())


@on_cpu
def _least_squares(terms: Tensor) -> Tensor:
    """Return the factors >= 0 with which the terms (rows, factors) are nearest to 1, by trying which are above 0."""
    ones, best, least = torch.ones(len(terms), 1, dtype=terms.dtype), torch.zeros(terms.shape[1]), float("inf")
    for chosen in product([False, True], repeat=terms.shape[1]):
        some = terms[:, list(chosen)]
        factors = torch.linalg.lstsq(some, ones, driver="gelsd").solution[:, 0]
        gap = float((some @ factors - 1).square().sum())
        if gap < least and bool((factors >= 0).all()):
            least, best = gap, torch.zeros(terms.shape[1], dtype=terms.dtype)
            best[list(chosen)] = factors
    return best
