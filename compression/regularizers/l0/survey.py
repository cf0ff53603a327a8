"""What gates find before they act: channels, how size depends on them, and whether a target is possible."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from potstill.thinning import ChannelGraph

from ...files.checked import CheckpointError, Field
from ...latency.measure import resized
from ...parts.claims import Goal
from ...processes.shards import first_sharded
from ..base import Site
from .budget import Budget
from .constraint import Constraint
from .final_gates import CLOSE, nearest, protected
from .gated_channels import GatedChannels
from .latency import Speed, measured
from .reach import Reach, find_reach
from .scale_parameters import Layout

logger = logging.getLogger(__name__)
FAR = 0.02
"""A target that is missed by more is refused where something other than the size of single channels is in the way."""


@dataclass(frozen=True)
class Target:
    """A size to reach: the `share` of parameters, multiply-adds or latency that may stay, or milliseconds."""

    unit: Literal["parameters", "multiply-adds", "latency"]
    share: float
    multiplier_rate: float
    ramp: float
    allow_inexact: bool
    milliseconds: float | None = None
    batch: int = 1

    @classmethod
    def of(cls, arguments: Any) -> Target | None:
        """Return the target of a regularizer's arguments, None where there is none."""
        common = (arguments.multiplier_lr, arguments.ramp, arguments.allow_inexact)
        if arguments.target_sparsity is not None:
            return cls("parameters", 1 - float(arguments.target_sparsity), *common)
        if arguments.target_macs is not None:
            return cls("multiply-adds", float(arguments.target_macs), *common)
        asked, batch = arguments.target_latency, arguments.latency_batch
        if asked is not None:
            return cls("latency", float(asked), *common, batch=batch)
        if arguments.target_milliseconds is not None:
            return cls("latency", 1.0, *common, float(arguments.target_milliseconds), batch)
        return None

    def goal(self, found: Survey) -> Goal | None:
        """Return what is to be removed of the network that was surveyed."""
        if found.constraint is None:
            return None
        of = round(found.constraint.budget.total)
        share = self.share if found.speed is None else found.share
        unit = "microseconds" if self.unit == "latency" else self.unit
        return Goal(unit, of, round(of * (1 - share)))

    def share_of(self, times: Budget) -> float:
        """Return which share of a network's time may stay."""
        return self.share if self.milliseconds is None else 1000 * self.milliseconds / times.total

    def words(self, share: float) -> str:
        """Return a share that stays, in the words of the argument."""
        return f"sparsity {1 - share:.4f}" if self.unit == "parameters" else f"{share:.4f} of the {self.unit}"


@dataclass(frozen=True)
class Survey:
    """The channels with gates, the whole size by gates, and with a target its constraint and what can be removed."""

    channels: GatedChannels
    sizes: Budget
    constraint: Constraint | None = None
    reach: Reach | None = None
    speed: Speed | None = None
    share: float = 1.0
    """Of a latency: what was asked for, relative to the whole network."""


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
    # Gates whose channels cannot be removed must not count as size that can be saved, or the target would be met by the
    # expected size and missed by the thinned network.
    reach = find_reach(site.model, site.example_inputs, channels, target.allow_inexact)
    counted = reach.counted(channels.layout)
    if target.unit == "latency":
        return _timed(site, graph, Survey(channels, sizes, reach=reach), counted, target)
    macs = target.unit == "multiply-adds"
    budget = Budget.of_macs(graph, counted) if macs else Budget.of_parameters(graph, parameters, counted)
    return Survey(channels, sizes, Constraint(budget, target.share, target.multiplier_rate, target.ramp), reach)


def _timed(site: Site, graph: ChannelGraph, found: Survey, counted: Layout, target: Target) -> Survey:
    """Return a survey with the latency as a function of the gates, the same on all ranks.

    Raises:
        ValueError: the parameters are sharded.
    """
    if first_sharded(list(site.model.parameters())) is not None:
        raise ValueError(f"{site.name}: a latency is measured on a whole network, and the parameters are sharded")
    speed = Speed(resized(site.example_inputs, target.batch), target.allow_inexact)
    budget = measured(site.model, graph, found.channels, counted, speed)
    budget.load_state_dict(site.ranks.first(budget.state_dict()))
    share = target.share_of(budget)
    if share < 1 and not site.goes_on:
        logger.info(
            "%s: the network takes %.3g ms at batch %d on this device; gates draw it to %.3g ms",
            site.name, budget.total / 1000, target.batch, share * budget.total / 1000,
        )  # fmt: skip
    constraint = Constraint(budget, share, target.multiplier_rate, target.ramp, measured=True)
    return replace(found, constraint=constraint, speed=speed, share=share)


def check_target(found: Survey, target: Target | None, site: Site) -> None:
    """Check that a target can be met by removing channels; warn where whole ones miss it by more than 0.005.

    Raises:
        ValueError: it cannot; says what can be reached and what is in the way. Of a run that goes on times are those of
            the machine on which it began, so that it is only warned of.
    """
    if target is None or found.constraint is None or found.reach is None:
        return
    try:
        _must_be_met(found, found.constraint, found.reach, target, site)
    except ValueError as error:
        if found.speed is None or not site.goes_on:
            raise
        logger.warning("%s (on this machine; a run that goes on has the times that it began with)", error)


def _must_be_met(found: Survey, constraint: Constraint, reach: Reach, target: Target, site: Site) -> None:
    owner, removable = site.name, reach.removable
    if found.speed is not None and found.share >= 1:
        if target.milliseconds is None:
            raise ValueError(f"{owner}: target_latency is the share of the time that stays: 1 leaves nothing to do")
        takes = f"the network takes {constraint.budget.total / 1000:.3g} ms at batch {target.batch} on this device"
        raise ValueError(f"{owner}: {takes}: less than the {target.milliseconds:g} ms that were asked for")
    chance = torch.Generator().manual_seed(0)
    # How near the target can be met depends on which gates close: four random orders stand for what training may want.
    orders = [torch.randperm(len(removable), generator=chance, device="cpu").float() for _ in range(4)]
    # The smallest network there can be: one channel in each gated layer, and all that thinning cannot remove.
    spared = protected(orders[0], found.channels) | ~removable
    least = constraint.size(spared)
    if least > constraint.goal + CLOSE:
        obstacles = reach.text()
        raise ValueError(
            f"{owner}: the target is out of reach: with one channel left in each gated layer the network is at"
            f" {target.words(least)}; name more layers in `weights` or ask for less" + (obstacles and f" ({obstacles})")
        )
    tries = (nearest(order, spared, constraint) for order in orders)
    met = min((constraint.size(chosen) for chosen in tries), key=lambda share: abs(share - constraint.goal))
    pieces = [*found.channels.together(), *filter(None, [reach.text()])]
    if pieces and abs(met - constraint.goal) > FAR:
        raise ValueError(
            f"{owner}: the target is out of reach: the nearest that thinning can reach is {target.words(met)}"
            f" ({'; '.join(pieces)}); ask for that, or name more layers in `weights`"
        )
    if abs(met - constraint.goal) > CLOSE:
        logger.warning("%s: whole channels are so large that the nearest to the target is %s", owner, target.words(met))


def times_state(found: Survey, settled: float | None, known: bool) -> dict[str, Any]:
    """Return the times that were measured: a second look, on another machine too, would find others.

    Args:
        found: the survey.
        settled: the measured share of the time behind the window, None before.
        known: no channels were removed since the survey.
    """
    if found.constraint is None or found.speed is None:
        return {}
    if settled is not None:
        return {"settled": settled, "time": found.constraint.budget.total, "share": found.share}
    return {"budget": found.constraint.budget.state_dict()} if known else {}


def with_times(
    found: Survey, settled: float | None, target: Target | None, state: Mapping[str, Any]
) -> tuple[Survey, float | None]:
    """Return a survey, and the settled share, as `times_state` gave them, for a target that may have been edited."""
    constraint, fields = found.constraint, Field(state)
    if constraint is None or target is None:
        return found, settled
    if "settled" in state:
        settled = fields["settled"].number()
    if "time" in state:
        constraint.budget.total = max(fields["time"].number(), 1e-9)
        found = replace(found, share=fields["share"].number())
    if "budget" in state:
        with suppress(CheckpointError):  # of other gates, which were measured just now
            constraint.budget.load_state_dict(state["budget"])
        constraint.goal = target.share_of(constraint.budget)
        found = replace(found, share=constraint.goal)
    return found, settled
