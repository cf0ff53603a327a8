"""How sparse, when: a rate maps the progress of a policy's window (0 to 1) to a sparsity (0 to 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..declare.cross_checks import Complaint

Rate = Callable[[float], float]


def constant(level: float) -> Rate:
    """Return the same sparsity at each time."""
    return lambda progress: level


def agp(initial: float, final: float) -> Rate:
    """Return the cubic rise of automated gradual pruning.

    Exactly `initial` at the first time, exactly `final` at the last.

    Zhu and Gupta 2017, "To prune, or not to prune", equation 1: s_t = s_f + (s_i - s_f) (1 - progress)^3.
    """
    return lambda progress: final + (initial - final) * (1 - progress) ** 3


def falling(args: Mapping[str, Any]) -> Iterable[Complaint]:
    """Yield the problem of a gradual pruner whose final sparsity is not above its initial one."""
    initial, final = args["initial_sparsity"], args["final_sparsity"]
    if final <= initial:
        yield "final_sparsity", f"{final:g} must be above initial_sparsity {initial:g}"
