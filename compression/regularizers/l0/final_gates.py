"""The last word on which gates are open: no layer loses all its channels, and a target is met by the exact count."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from .constraint import Constraint
from .gated_channels import GatedChannels
from .gates import Gates

logger = logging.getLogger(__name__)

CLOSE = 0.005
"""A size this near to the goal is met."""
NEAR = 12
"""So many gates on each side of the threshold may be exchanged where single channels are large."""
AJAR = 0.05
"""Value of a gate that was shut and must open: little, so that the function hardly changes, but training can go on."""


@dataclass(frozen=True)
class Verdict:
    """Which gates (bool) of those that stand are to be opened and closed, and which layers had none open."""

    opened: Tensor
    closed: Tensor
    shut_layers: tuple[str, ...]

    @torch.no_grad()
    def on(self, gates: Gates) -> Tensor:
        """(gates,): `log_alpha` after it."""
        settled = gates.log_alpha.detach().clone()
        settled[self.opened] = gates.distribution.position(AJAR)
        # At `position(0)` itself the gate is 0 only up to rounding; 1 in log_alpha further it is 0 in every precision.
        settled[self.closed] = gates.distribution.position(0) - 1
        return settled


@torch.no_grad()
def judge(gates: Gates, channels: GatedChannels, constraint: Constraint | None, removable: Tensor | None) -> Verdict:
    """Which gates to open or close so that the deterministic network is one that can stay.

    Each listed layer keeps its most open gate. With a target, gates are closed or opened in the order of `log_alpha`
    (one threshold for all) until the size of the thinned network is as near to the goal as it can be; those whose
    channels thinning could not remove (not `removable`) stay open.
    """
    # What is judged are the gates of evaluation (eq. 13 of Louizos et al. 2018): they are what stays after training.
    was_open = gates.deterministic() > 0
    spared = protected(gates.log_alpha, channels)
    if removable is not None:
        spared = spared | ~removable.to(spared.device)
    is_open = was_open | spared if constraint is None else nearest(gates.log_alpha, spared, constraint)
    shut = [name for name, layer in channels.layers.items() if not was_open[layer.to(was_open.device)].any()]
    return Verdict(is_open & ~was_open, was_open & ~is_open, tuple(shut))


def tell(verdict: Verdict, owner: str, target: bool) -> None:
    """Log what a verdict changes."""
    for name in verdict.shut_layers:
        logger.info("%s: all gates of %s were shut; the most open one stays open", owner, name)
    if target:
        logger.info(
            "%s: to meet the target exactly, %d gates were opened and %d closed of %d",
            owner, int(verdict.opened.sum()), int(verdict.closed.sum()), len(verdict.opened),
        )  # fmt: skip


def protected(log_alpha: Tensor, channels: GatedChannels) -> Tensor:
    """Bool, (gates,): the most open gate of each layer."""
    spared = torch.zeros(len(log_alpha), dtype=torch.bool, device=log_alpha.device)
    for layer in channels.layers.values():
        gates = layer.to(log_alpha.device)
        spared[gates[log_alpha[gates].argmax()]] = True
    return spared


def nearest(log_alpha: Tensor, spared: Tensor, constraint: Constraint) -> Tensor:
    """Return which gates to open (bool) so that the size is nearest to the goal: the spared and the most open ones.

    Where single channels are so large that no number of gates in this order comes close, some next to the threshold are
    exchanged.
    """
    order = _ranking(log_alpha, spared)
    count = _best_count(order, constraint, int(spared.sum()))
    is_open = order < count
    # One threshold for all keeps what training found most useful. Only where single channels are so large that the size
    # jumps over the goal are gates near the threshold exchanged: those are the ones whose order says least.
    around = [int(gate) for gate in order.argsort()[max(int(spared.sum()), count - NEAR) : count + NEAR]]
    best = abs(constraint.size(is_open) - constraint.goal)
    while best > CLOSE and around:
        # All choices of up to 3 of 2 x NEAR = 24 gates are 24 + 276 + 2,024 rows, sized in one matrix product.
        tries = is_open ^ _exchanges(around, len(is_open)).to(is_open.device)
        gap, index = (constraint.budget.shares(tries.double()) - constraint.goal).abs().min(0)
        if gap.item() >= best:
            break
        is_open, best = tries[index], gap.item()
    return is_open


def _exchanges(gates: list[int], count: int) -> Tensor:
    """Bool, (choices, count): each choice of one, two or three of the gates."""
    choices = [chosen for number in (1, 2, 3) for chosen in combinations(gates, number)]
    flips = torch.zeros(len(choices), count, dtype=torch.bool, device="cpu")
    for row, chosen in enumerate(choices):
        flips[row, list(chosen)] = True
    return flips


def _ranking(log_alpha: Tensor, spared: Tensor) -> Tensor:
    """Return the place of each gate, spared ones first, then the most open."""
    order = torch.where(spared, torch.inf, log_alpha).argsort(descending=True, stable=True)
    return order.argsort()  # of a permutation: its inverse, the place of each gate


def _best_count(order: Tensor, constraint: Constraint, least: int) -> int:
    """Return how many gates, in the given order, make a size nearest to the goal: the size rises with their number."""
    # Every gate that opens adds size: the size is monotonic in the count, and log2(gates) sizes are enough.
    low, high = least, len(order)
    while low < high:  # the first count whose size is above the goal
        middle = (low + high) // 2
        if _size(order, middle, constraint) > constraint.goal:
            high = middle
        else:
            low = middle + 1
    candidates = {max(least, low - 1), low}  # the last count below the goal may be nearer than the first above
    return min(candidates, key=lambda count: abs(_size(order, count, constraint) - constraint.goal))


def _size(order: Tensor, count: int, constraint: Constraint) -> float:
    return constraint.size(order < count)
