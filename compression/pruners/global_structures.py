"""Ranks the channels of all listed weights together: one order over the whole network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from potstill.thinning import ChannelGraph, on_cpu

from ..declare.arguments import Fraction, Names, Range
from ..declare.cross_checks import Complaint, apart
from ..declare.names import resolve
from ..declare.registry import register
from ..files.checked import Field
from ..latency.channels import channel_milliseconds, layer_costs
from ..latency.costs import Cost
from ..latency.measure import resized
from ..parts.channel_ranking import Per, Scope, channel_keys, channel_means
from ..parts.channel_scores import find_score
from ..parts.compiled_models import hooks_left_out
from ..parts.selection import count, keep_highest
from ..parts.sparsity_rates import Rate, agp, constant, falling
from ..parts.structures import FILTERS, Group, oriented
from ..processes.shards import refuse_sharded
from ..steps import Step, Window
from .base import Pruner, View
from .cover_channel import NEEDS_GRAPH, channel_graph, hide
from .follow_activations import unwatched
from .outcome import Outcome
from .score_watch import ScoreWatch
from .statistics import without_gradients

logger = logging.getLogger(__name__)

ScheduledScore = Literal["l1", "l2", "bn_scale", "fpgm", "lamp", "taylor", "hessian", "activation", "random"]
Batch = Annotated[int, Range(1, 4096)]
EQUAL = "scope layer takes the same share of each layer, whose channels take equal times: leave one of them out"


class GlobalStructures(Pruner):
    """Hides the lowest-scored channels of all listed weights together; one of each set of channels stays.

    A channel is hidden in all that makes it, so that thinning removes it. See `prune_channels` for scores and scope.
    """

    local = ("statistics",)
    weights: Names
    score: ScheduledScore
    scope: Scope
    per: Per
    latency_batch: Batch

    @property
    def rate(self) -> Rate:
        """The sparsity by the window's progress."""
        raise NotImplementedError

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
        """Yield a sparsity that does not rise, and weights that give a score nothing to see."""
        rates = falling(args) if "final_sparsity" in args else ()
        name = args.get("score")
        blind = without_gradients(args, shapes) if name in ("taylor", "hessian") else ()
        unseen = (
            apart(unwatched(args, shapes), hooks_left_out(f"score {name!r}", shapes)) if name == "activation" else ()
        )
        equal = args.get("per") == "millisecond" and args.get("scope") == "layer"
        return apart(rates, blind, unseen, [("per", EQUAL)] if equal else ())

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `weights`, and begin to watch what the score looks at.

        Raises:
            ValueError: a weight is sharded.
        """
        self._groups = {name: oriented(FILTERS, name, model) for name in resolve(self.weights, model)}
        refuse_sharded(type(self).__name__, self._groups, model)
        self._outcomes: Mapping[str, Outcome] = {}
        self._costs: dict[str, Cost] = {}
        self._watch = ScoreWatch(find_score(self.score), self._groups)
        self._watch.attach(model)

    def prepare(self, window: Window, graph: Callable[[], ChannelGraph | None]) -> None:
        """Check that channels can be known.

        Raises:
            ValueError: the model cannot be traced.
        """
        if graph() is None:
            raise ValueError(f"{type(self).__name__} {NEEDS_GRAPH}")

    def targets(self) -> Iterable[str]:
        """Return the listed weights."""
        return self._groups

    def structures(self) -> Mapping[str, Group]:
        """Return how each weight splits."""
        return self._groups

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """Return what the last ranking hid, by weight."""
        return self._outcomes

    @on_cpu
    def masks(self, view: View) -> dict[str, Tensor]:
        """Return the masks by parameter; begin new statistics."""
        graph = channel_graph(view, type(self).__name__)
        channels = {name: graph.channels_of(name, group.kept[0]) for name, group in self._groups.items()}
        # A channel that several listed weights make is ranked once, and counts once.
        ids = torch.cat(list(channels.values())).unique()
        ids = ids[ids > 0]
        found = self._watch.scores(view.weights, graph, view.ranks)
        if not found:
            logger.warning("%s: nothing to rank channels by yet, so none is pruned now", view.owner)
        means = channel_means(found, find_score(self.score), view.weights, graph)
        keys = self._per(channel_keys(graph, means, self.scope), graph, view)[ids]
        living = self._living(view, channels, graph)[ids]
        # No more than may go at all: of each set the best stays (key inf). What is dead already counts, whatever its
        # key.
        number = min(count(self.rate(view.progress), len(ids)), int((keys.isfinite() | ~living).sum()))
        dead = torch.zeros(graph.count + 1, dtype=torch.bool)
        dead[ids[~keep_highest(keys, number, living)]] = True
        masks: dict[str, Tensor] = {}
        outcomes = {}
        for name, group in self._groups.items():
            gone = dead[channels[name]].nonzero().flatten()
            hide(masks, graph.coverage(name, gone, dim=group.kept[0], whole_class=True), view)
            outcomes[name] = Outcome(len(channels[name]), len(gone), len(gone), {1: len(channels[name])})
        self._outcomes = outcomes
        return {**{name: torch.ones_like(view.weights[name], dtype=torch.bool) for name in self._groups}, **masks}

    def _per(self, keys: Tensor, graph: ChannelGraph, view: View) -> Tensor:
        """Return what channels are ordered by; times are measured at the first ranking, and those of rank 0 count."""
        if self.per == "channel":
            return keys
        if not self._costs:
            inputs = resized(view.inputs, self.latency_batch)
            self._costs = view.ranks.first(layer_costs(view.model, graph, inputs) if view.ranks.rank == 0 else None)
        return keys / channel_milliseconds(self._costs, graph)

    def _living(self, view: View, channels: Mapping[str, Tensor], graph: ChannelGraph) -> Tensor:
        living = torch.zeros(graph.count + 1, dtype=torch.bool)
        for name, group in self._groups.items():
            alive = view.alive(name)
            made = channels[name]
            living[made if alive is None else made[group.split(alive).any(1).cpu()]] = True
        return living

    def at_last_level(self, view: View) -> bool:
        """Return whether later steps of the window ask for no more."""
        return self.rate(view.progress) == self.rate(1.0)

    def see_loss(self, loss: Tensor, step: Step) -> None:
        """Estimate curvature, where the score looks at it."""
        self._watch.see_loss(loss, step)

    def waits(self) -> bool:
        """Return whether a weight has yet to be seen."""
        return self._watch.waits()

    def release(self) -> None:
        """Stop watching."""
        self._watch.release()

    def copied(self, model: nn.Module) -> None:
        """Watch the model of a copy."""
        self._watch.copied(model)

    def after_thinning(self) -> None:
        """Statistics of the old channels are worth nothing."""
        self._watch.statistics.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of what was seen, and the times that were measured."""
        costs = {name: list(astuple(cost)) for name, cost in self._costs.items()}
        return {"statistics": self._watch.statistics.state_dict(), "costs": costs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self._watch.statistics.load_state_dict(state["statistics"])
        costs = Field(state)["costs"].mapping() if "costs" in state else {}  # earlier versions measured none
        self._costs = {name: Cost(*(part.number() for part in _four(parts))) for name, parts in costs.items()}

    def join(self, states: Sequence[Field]) -> None:
        """Take the sums of several ranks."""
        self._watch.statistics.join([state["statistics"] for state in states])


@register("pruners")
@dataclass(eq=False)
class GlobalStructurePruner(GlobalStructures):
    """Hides a constant fraction of the channels of all listed weights together.

    Attributes:
        desired_sparsity: the fraction of their channels to hide.
        weights: weights of convolutions or Linear layers, or patterns of them.
        score: `l1`, `l2`, `bn_scale`, `fpgm`, `lamp`, `taylor`, `activation` (over the minibatches since the last
            ranking), `hessian` (over the first 8 of them; needs the loss), `random`.
        scope: `normalized`: scores are divided by their mean within a layer; `global`: as they are; `layer`: the same
            share of each.
        per: `channel`: the lowest scores go; `millisecond`: those that are lowest for the time that the channel takes,
            measured on this device.
        latency_batch: batch size of that time.
    """

    desired_sparsity: Fraction
    weights: Names
    score: ScheduledScore = "l1"
    scope: Scope = "normalized"
    per: Per = "channel"
    latency_batch: Batch = 1

    @property
    def rate(self) -> Rate:
        """The constant sparsity."""
        return constant(self.desired_sparsity)


@register("pruners")
@dataclass(eq=False)
class GlobalStructurePruner_AGP(GlobalStructures):  # noqa: N801  (named like the others)
    """Like `GlobalStructurePruner`, along the schedule of `rates.agp`.

    Attributes:
        initial_sparsity: the fraction of channels to hide at the window's first time; it may be 0.
        final_sparsity: the fraction at its last.
        weights: weights of convolutions or Linear layers, or patterns of them.
        score: as of `GlobalStructurePruner`.
        scope: as of `GlobalStructurePruner`.
        per: as of `GlobalStructurePruner`.
        latency_batch: as of `GlobalStructurePruner`.
    """

    initial_sparsity: Fraction
    final_sparsity: Fraction
    weights: Names
    score: ScheduledScore = "l1"
    scope: Scope = "normalized"
    per: Per = "channel"
    latency_batch: Batch = 1

    @property
    def rate(self) -> Rate:
        """The cubic rise."""
        return agp(self.initial_sparsity, self.final_sparsity)


def _four(parts: Field) -> list[Field]:
    """Return the numbers of a layer's `Cost`."""
    items = parts.items()
    if len(items) != 4:
        raise parts.error("four numbers")
    return items
