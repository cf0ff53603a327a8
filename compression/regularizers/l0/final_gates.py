"""The last word on which gates are open: no layer loses all its channels, and a target is met by the exact count."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import combinations
from math import comb

import torch
from torch import Tensor

from .constraint import Constraint
from .gated_channels import GatedChannels
from .gates import Gates

logger = logging.getLogger(__name__)

CLOSE = 0.005
"""A size this near to the goal is met."""
BLOCKS, ROWS = 12, 10_000
"""Where single channels are large: in so many blocks of gates may the threshold be another, so many ways are tried."""
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
        """Return (gates,): `log_alpha` after it."""
        settled = gates.log_alpha.detach().clone()
        settled[self.opened] = gates.distribution.position(AJAR)
        # At `position(0)` itself the gate is 0 only up to rounding; 1 in log_alpha further it is 0 in every precision.
        settled[self.closed] = gates.distribution.position(0) - 1
        return settled


@torch.no_grad()
def judge(gates: Gates, channels: GatedChannels, constraint: Constraint | None, removable: Tensor | None) -> Verdict:
    """Return which gates to open or close so that the deterministic network is one that can stay.

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
    """Return bool, (gates,): the most open gate of each layer."""
    spared = torch.zeros(len(log_alpha), dtype=torch.bool, device=log_alpha.device)
    for layer in channels.layers.values():
        gates = layer.to(log_alpha.device)
        # Without it the layer would pass nothing on; thinning would keep one channel, of zeros, all the same.
        spared[gates[log_alpha[gates].argmax()]] = True
    return spared


def nearest(log_alpha: Tensor, spared: Tensor, constraint: Constraint) -> Tensor:
    """Return which gates to open (bool) so that the size is nearest to the goal: the spared and the most open ones.

    Where single channels are so large that no number of gates in this order comes close, each block has its own.
    """
    order = _ranking(log_alpha, spared)
    is_open = order < _best_count(order, constraint, int(spared.sum()))
    best = abs(constraint.size(is_open) - constraint.goal)
    if best <= CLOSE:
        return is_open
    # One threshold for all keeps what training found most useful. Only where single channels are so large that the size
    # jumps over the goal is it another one in some blocks of gates: the size depends on how many of each are open.
    blocks = constraint.budget.blocks.to(order.device)
    counts, least, most = (_by_block(which, blocks) for which in (is_open, spared, torch.ones_like(is_open)))
    changes = _changes(_nearest_blocks(order, blocks, is_open), len(counts)).to(order.device)
    while best > CLOSE:
        tries = counts + changes
        tries = tries[((tries >= least) & (tries <= most)).all(1)]
        gaps = (constraint.budget.shares(tries.double()) - constraint.goal).abs()
        # Rows go from the smallest change to the largest: the first that comes close, or else the nearest.
        index = int((gaps <= CLOSE).int().argmax()) if bool((gaps <= CLOSE).any()) else int(gaps.argmin())
        if gaps[index].item() >= best:
            break
        # Each round starts from the best so far, until no change of up to three blocks comes nearer.
        counts, best = tries[index], gaps[index].item()
    return _place_in_block(order, blocks) < counts[blocks]


def _by_block(which: Tensor, blocks: Tensor) -> Tensor:
    """Return how many of the gates (bool) are in each block."""
    return blocks[which].bincount(minlength=int(blocks.max()) + 1)


def _place_in_block(order: Tensor, blocks: Tensor) -> Tensor:
    """Return the place of each gate among those of its block."""
    # One sort by (block, place): places are below len(order), so the product keeps blocks apart.
    by_block = (blocks * len(order) + order).argsort()
    counts = blocks.bincount()
    first = (counts.cumsum(0) - counts)[blocks]  # the block's place in `by_block`
    return by_block.argsort() - first


def _nearest_blocks(order: Tensor, blocks: Tensor, is_open: Tensor) -> list[int]:
    """Return the blocks that gates nearest to the threshold are of."""
    distance = (order - int(is_open.sum())).abs()
    return list(dict.fromkeys(blocks[distance.argsort()].tolist()))[:BLOCKS]


def _changes(near: list[int], blocks: int) -> Tensor:
    """Return (changes, blocks): how many more or fewer gates are open, in up to 3 of the blocks, small ones first."""
    rows, changed = [], min(3, len(near))
    # As far as it goes with some 10,000 rows, which are sized in one matrix product.
    reach = max(1, int((ROWS / comb(len(near), changed)) ** (1 / changed) - 1) // 2)
    steps = torch.arange(-reach, reach + 1, device="cpu")
    for chosen in combinations(near, changed):
        grid = torch.cartesian_prod(*[steps] * changed).reshape(-1, changed)
        rows.append(torch.zeros(len(grid), blocks, dtype=torch.int64, device="cpu"))
        rows[-1][:, list(chosen)] = grid
    every = torch.cat(rows)
    return every[every.abs().sum(1).argsort(stable=True)]


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
