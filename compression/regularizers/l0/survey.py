"""What gates find before they act: channels, how size depends on them, and whether a target is possible."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...parts.claims import Goal
from ...processes.shards import first_sharded
from ..base import Site
from .budget import Budget
from .constraint import Constraint
from .final_gates import CLOSE, nearest, protected
from .gated_channels import GatedChannels
from .reach import Reach, find_reach

logger = logging.getLogger(__name__)
FAR = 0.02
"""A target that is missed by more is refused where something other than the size of single channels is in the way."""


@dataclass(frozen=True)
class Target:
    """A size to reach: the `share` of parameters (or of multiply-adds) that may stay."""

    share: float
    macs: bool
    multiplier_rate: float
    ramp: float
    allow_inexact: bool

    @classmethod
    def of(cls, arguments: Any) -> Target | None:
        """The target of a regularizer's arguments, None where there is none."""
        if arguments.target_sparsity is None and arguments.target_macs is None:
            return None
        macs = arguments.target_macs is not None
        share = arguments.target_macs if macs else 1 - arguments.target_sparsity
        return cls(float(share), macs, arguments.multiplier_lr, arguments.ramp, arguments.allow_inexact)

    def goal(self, found: Survey) -> Goal | None:
        """What is to be removed of the network that was surveyed."""
        if found.constraint is None:
            return None
        of = round(found.constraint.budget.total)
        return Goal("multiply-adds" if self.macs else "parameters", of, round(of * (1 - self.share)))

    def words(self, share: float) -> str:
        """Return a share that stays, in the words of the argument."""
        return f"{share:.4f} of the multiply-adds" if self.macs else f"sparsity {1 - share:.4f}"


@dataclass(frozen=True)
class Survey:
    """The channels with gates, the whole size by gates, and with a target its constraint and what can be removed."""

    channels: GatedChannels
    sizes: Budget
    constraint: Constraint | None = None
    reach: Reach | None = None


def survey(site: Site, names: Sequence[str], target: Target | None) -> Survey:
    """Find out what gates on the channels of `names` can do in the network as it is.

    Raises:
        ValueError: the model cannot be traced, a channel is frozen, or the target is out of reach.
    """
    graph = site.graph()
    if graph is None:
        raise ValueError(f"{site.name}: gates need channels: CompressionScheduler(model, example_inputs=...)")
    channels = GatedChannels(graph, names)
    parameters = [name for name, _ in site.model.named_parameters()]
    sizes = Budget.of_parameters(graph, parameters, channels.layout)
    if target is None:
        return Survey(channels, sizes)
    reach, counted = None, channels.layout
    if first_sharded(list(site.model.parameters())) is None:  # finding out takes a copy
        reach = find_reach(site.model, site.example_inputs, channels, target.allow_inexact)
        counted = reach.counted(channels.layout)
    budget = Budget.of_macs(graph, counted) if target.macs else Budget.of_parameters(graph, parameters, counted)
    return Survey(channels, sizes, Constraint(budget, target.share, target.multiplier_rate, target.ramp), reach)


def check_target(found: Survey, target: Target | None, owner: str) -> None:
    """Check that a target can be met by removing channels; warn where whole ones miss it by more than 0.005.

    Raises:
        ValueError: it cannot; says what can be reached and what is in the way.
    """
    if target is None or found.constraint is None or found.reach is None:
        return
    constraint, removable = found.constraint, found.reach.removable
    chance = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(removable), generator=chance, device="cpu").float() for _ in range(4)]
    spared = protected(orders[0], found.channels) | ~removable
    least = constraint.size(spared)
    if least > target.share + CLOSE:
        obstacles = found.reach.text()
        raise ValueError(
            f"{owner}: the target is out of reach: with one channel left in each gated layer the network is at"
            f" {target.words(least)}; name more layers in `weights` or ask for less" + (obstacles and f" ({obstacles})")
        )
    tries = (nearest(order, spared, constraint) for order in orders)
    met = min((constraint.size(chosen) for chosen in tries), key=lambda share: abs(share - target.share))
    pieces = [*found.channels.together(), *filter(None, [found.reach.text()])]
    if pieces and abs(met - target.share) > FAR:
        raise ValueError(
            f"{owner}: the target is out of reach: the nearest that thinning can reach is {target.words(met)}"
            f" ({'; '.join(pieces)}); ask for that, or name more layers in `weights`"
        )
    if abs(met - target.share) > CLOSE:
        logger.warning("%s: whole channels are so large that the nearest to the target is %s", owner, target.words(met))
