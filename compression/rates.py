"""How sparse, when: a rate maps the progress of a policy's window (0 to 1) to a sparsity (0 to 1)."""

from __future__ import annotations

from collections.abc import Callable

Rate = Callable[[float], float]


def constant(level: float) -> Rate:
    """The same sparsity at each time."""
    return lambda progress: level


def agp(initial: float, final: float) -> Rate:
    """The cubic rise of automated gradual pruning: exactly `initial` at the first time, exactly `final` at the last.

    Zhu and Gupta 2017, "To prune, or not to prune", equation 1: s_t = s_f + (s_i - s_f) (1 - progress)^3.
    """
    return lambda progress: final + (initial - final) * (1 - progress) ** 3
