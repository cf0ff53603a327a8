"""The last word on which gates are open: no layer loses all its channels, and a target is met by the exact count."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from .constraint import Constraint
from .gated_channels import GatedChannels
from .gates import Gates

logger = logging.getLogger(__name__)

AJAR = 0.05
"""Value of a gate that was shut and must open: little, so that the function hardly changes, but training can go on."""


@torch.no_grad()
def settle(gates: Gates, channels: GatedChannels, constraint: Constraint | None, owner: str) -> None:
    """Open or close gates so that the deterministic network is one that can stay.

    Each listed layer keeps its most open gate. With a target, gates are closed or opened in the order of `log_alpha`
    (one threshold for all) until the size of the thinned network is as near to the goal as it can be.
    """
    was_open = gates.deterministic() > 0
    spared = protected(gates.log_alpha, channels)
    is_open = was_open | spared
    if constraint is not None:
        order = _ranking(gates.log_alpha, spared)
        is_open = order < _best_count(order, constraint, int(spared.sum()))
    for name, layer in channels.layers.items():
        if not was_open[layer.to(was_open.device)].any():
            logger.info("%s: all gates of %s were shut; the most open one stays open", owner, name)
    opened, closed = is_open & ~was_open, was_open & ~is_open
    if constraint is not None:
        logger.info(
            "%s: to meet the target exactly, %d gates were opened and %d closed of %d",
            owner, int(opened.sum()), int(closed.sum()), len(gates),
        )  # fmt: skip
    distribution = gates.distribution
    gates.log_alpha[opened] = distribution.position(AJAR)
    gates.log_alpha[closed] = distribution.position(0) - 1


def protected(log_alpha: Tensor, channels: GatedChannels) -> Tensor:
    """Bool, (gates,): the most open gate of each layer."""
    spared = torch.zeros(len(log_alpha), dtype=torch.bool, device=log_alpha.device)
    for layer in channels.layers.values():
        gates = layer.to(log_alpha.device)
        spared[gates[log_alpha[gates].argmax()]] = True
    return spared


def _ranking(log_alpha: Tensor, spared: Tensor) -> Tensor:
    """The place of each gate, spared ones first, then the most open."""
    order = torch.where(spared, torch.inf, log_alpha).argsort(descending=True, stable=True)
    return order.argsort()


def _best_count(order: Tensor, constraint: Constraint, least: int) -> int:
    """How many gates, in the given order, make a size nearest to the goal: the size rises with their number."""
    low, high = least, len(order)
    while low < high:  # the first count whose size is above the goal
        middle = (low + high) // 2
        if _size(order, middle, constraint) > constraint.goal:
            high = middle
        else:
            low = middle + 1
    candidates = {max(least, low - 1), low}
    return min(candidates, key=lambda count: abs(_size(order, count, constraint) - constraint.goal))


def _size(order: Tensor, count: int, constraint: Constraint) -> float:
    return constraint.budget.share((order < count).double()).item()
