"""What can be wrong with the arguments and the window of L0 gates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ...declare.cross_checks import Complaint
from ...parts.compiled_models import hooks_left_out
from ...parts.structures import FILTERS
from ...parts.weight_norm import direction_problem
from ...steps import Window

AIMS = ("strength", "target_sparsity", "target_macs", "target_latency", "target_milliseconds")
EXAMPLES = "L0Regularizer with sampling: example"


def aims(args: Mapping[str, Any]) -> Iterable[Complaint]:
    """Complain of not exactly one of the arguments that say how much."""
    given = [name for name in AIMS if args[name] is not None]
    if len(given) != 1:
        message = f"give exactly one of {', '.join(AIMS)}, not {' and '.join(given) or 'none'}"
        yield given[1] if given else "", message


def stretch(args: Mapping[str, Any]) -> Iterable[Complaint]:
    """Yield an interval that gates cannot reach both ends of."""
    low, high = args["stretch"]
    if low >= 0 or high <= 1:
        yield "stretch", f"must reach from below 0 to above 1, not from {low:g} to {high:g}"


def compiled(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    """Complain of draws for each example in a compiled model."""
    if args["sampling"] == "example":
        yield from hooks_left_out(EXAMPLES, shapes)


def directions(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    """Complain of weights that must not become zero."""
    for name in args["weights"] if shapes else ():
        problem = direction_problem(FILTERS, name, shapes) if len(shapes[name]) >= FILTERS.min_rank else None
        if problem:
            yield f"weights.{name}", problem


def gaps(window: Window) -> str | None:
    """Return what is wrong with a window, or None."""
    if len(window.times) == window.end - window.start:
        return None
    return "gates act at each time of their window: frequency 1, no gaps in a list"
