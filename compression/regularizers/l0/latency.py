"""Latency as a size that gates shrink: layers by a measured table, the rest and the end by whole networks."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from potstill.thinning import ChannelGraph, on_cpu, thin

from ...latency.channels import layer_costs
from ...latency.costs import Cost
from ...latency.measure import milliseconds
from .budget import Budget
from .gated_channels import GatedChannels
from .reach import shut
from .scale_parameters import Layout

logger = logging.getLogger(__name__)

NEAR, ROUNDS = 0.01, 5
"""A measured latency this near to the asked one is met; so many networks are measured to come there."""
FLATTEST = 0.1
"""The least that measured latency moves with computed latency."""
Term = tuple[str, float, tuple[int, ...]]
"""Weight, factor, and the dimensions of the weight whose sizes the factor is multiplied by."""


@dataclass(frozen=True)
class Speed:
    """How the latency of a network is measured.

    Attributes:
        inputs: what it is called with, in the batch size that counts.
        allow_inexact: what thinning may remove.
    """

    inputs: Any
    allow_inexact: bool

    def share(self, model: nn.Module, channels: GatedChannels, opened: Tensor) -> float:
        """Return the latency with the open ones of the gates, measured beside the whole network's, relative to it."""
        whole, part = self.milliseconds(model, channels, opened)
        return part / whole

    def milliseconds(self, model: nn.Module, channels: GatedChannels, opened: Tensor) -> list[float]:
        """Return the latency of the whole network, and with the open ones of the gates."""
        small = without(model, channels, opened, self.inputs, self.allow_inexact)
        return milliseconds([copy.deepcopy(model), small], self.inputs)


@on_cpu
def without(model: nn.Module, channels: GatedChannels, opened: Tensor, inputs: Any, allow_inexact: bool) -> nn.Module:
    """Return a copy of the network without the channels whose gates are shut."""
    small = shut(model, channels, opened.cpu())
    with torch.random.fork_rng():
        thin(small, inputs, allow_inexact=allow_inexact)
    return small


def measured(model: nn.Module, graph: ChannelGraph, channels: GatedChannels, counted: Layout, speed: Speed) -> Budget:
    """Return the latency as a function of the gates, in microseconds.

    latency = sum of the layers' times + a + b x (elements that layers put out): norms, activations, sums and pools
    take time by the size of what they read. a and b follow from the times of two whole networks: this one, and one
    with every other gate shut.

    Args:
        model: the network.
        graph: its channels.
        channels: those with gates.
        counted: the gates of channels that thinning removes.
        speed: what measures whole networks.
    """
    costs = layer_costs(model, graph, speed.inputs)
    terms, fixed = _layer_terms(costs, graph)
    outputs: list[Term] = [(layer.weight, float(layer.positions), (layer.out_dim,)) for layer in graph.layers]
    half = torch.arange(len(channels), device="cpu") % 2 == 0
    scale, rest, each = _rest(
        Budget.of_terms(graph, counted, terms, fixed),
        Budget.of_terms(graph, counted, outputs),
        half.double(),
        *speed.milliseconds(model, channels, half),
    )
    terms = [(name, scale * factor, dims) for name, factor, dims in terms]
    terms += [(name, each * positions, dims) for name, positions, dims in outputs]
    micro = [(name, 1000 * factor, dims) for name, factor, dims in terms]
    return Budget.of_terms(graph, counted, micro, 1000 * (scale * fixed + rest))


def _layer_terms(costs: dict[str, Cost], graph: ChannelGraph) -> tuple[list[Term], float]:
    """Return what layers cost as terms over dimensions of their weights, and what they cost in any width."""
    terms: list[Term] = []
    for name, cost in costs.items():
        grouped = next((layer for layer in graph.layers if layer.weight == name), None)
        # In transposed convolutions inputs come first; of grouped ones the second dimension is a group's.
        out, into = (0, 1) if grouped is None else (grouped.out_dim, grouped.in_dim)
        each = 1 if grouped is None else grouped.groups
        terms.append((name, cost.by_output, (out,)))
        if graph.shapes[name][into] > 1 or each == 1:
            terms += [(name, cost.by_input * each, (into,)), (name, cost.by_both * each, (out, into))]
    return terms, sum(cost.fixed for cost in costs.values())


def _rest(layers: Budget, outputs: Budget, half: Tensor, whole: float, part: float) -> tuple[float, float, float]:
    """Return a factor of the layers' times, what is fixed, and what each element costs that layers put out.

    Args:
        layers: milliseconds of the layers.
        outputs: elements that they put out.
        half: (gates,), the open ones (1.0) of the smaller network.
        whole: milliseconds with all gates open.
        part: of the smaller one.
    """
    of_layers, of_outputs = layers.total, outputs.total
    if of_layers >= whole:  # layers on their own wait longer for their data than one after the other
        return whole / of_layers, 0.0, 0.0
    rest, rest_of_part = whole - of_layers, part - of_layers * float(layers.share(half))
    fewer = of_outputs * (1 - float(outputs.share(half)))
    by_output = min(max((rest - rest_of_part) / fewer, 0.0), rest / of_outputs) if fewer else 0.0
    return 1.0, rest - by_output * of_outputs, by_output


def settle(share_of: Callable[[float], float], asked: float) -> tuple[float, float]:
    """Return the goal for the computed latency with which the measured one is nearest to what was asked, and that one.

    Args:
        share_of: measures the network that is left with a goal: its latency relative to the whole network's.
        asked: the share that was asked for.
    """
    goal, tries = asked, dict[float, float]()
    for _ in range(ROUNDS):
        tries[goal] = share_of(goal)
        logger.debug("computed %.3f of the latency, measured %.3f", goal, tries[goal])
        if abs(tries[goal] - asked) <= NEAR:
            break
        goal = _next_goal(tries, asked)
    gaps = {goal: abs(share - asked) for goal, share in tries.items()}
    # Where none is met, of those that measuring cannot tell apart the one that removes least: a network that is mostly
    # overhead gets no faster, however little of it is left.
    nearest = min(gaps.values())
    best = max(goal for goal, gap in gaps.items() if gap <= nearest + (NEAR if nearest > NEAR else 0))
    return best, tries[best]


def _next_goal(tries: Mapping[float, float], asked: float) -> float:
    """Return what to try next: on the line through the two tries whose measured share is nearest to the asked one.

    Args:
        tries: goal -> the share that was measured with it.
        asked: the share that was asked for.
    """
    goal, *others = sorted(tries, key=lambda goal: abs(tries[goal] - asked))
    slope = (tries[others[0]] - tries[goal]) / (others[0] - goal) if others else 1.0
    # What is measured moves with what is computed; where it seems not to, it was measured badly.
    slope = slope if slope > FLATTEST else 1.0
    return min(max(goal + (asked - tries[goal]) / slope, 0.01), 1.0)
