"""What a ranking came to, and what thinning can do with the filters that it hides, by the channel graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from potstill.thinning import ChannelGraph, on_cpu

from ..parts.structures import Group
from .base import View
from .indivisible import Ties, sizes
from .outcome import Outcome

UNKNOWN = "without example_inputs it is not known what belongs together"
IN_PART = "other filters of the same channels live"


@dataclass(frozen=True)
class Ranking:
    """What a ranking came to.

    Attributes:
        masks: all masks, by parameter, those of what follows included.
        keeps: weight -> which of its structures stay (bool).
        asked: weight -> how many were to be hidden; left out where chance decides.
        ties: the weights, those together over which one ranking decided.
        limits: weight -> what kept the count low, beside sets that do not fit.
    """

    masks: dict[str, Tensor]
    keeps: Mapping[str, Tensor]
    asked: Mapping[str, int]
    ties: Iterable[Ties]
    limits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fates:
    """How many hidden filters of a weight go exactly, go with `allow_inexact`, or stay, and who shares what stays."""

    removable: int = 0
    inexact: int = 0
    stay: Mapping[str, int] = field(default_factory=dict)
    sharers: tuple[str, ...] = ()


def outcomes_of(ranking: Ranking, groups: Mapping[str, Group], view: View) -> dict[str, Outcome]:
    """Return the outcome for each weight of a ranking."""
    hidden = {name: ~keep.cpu() for name, keep in ranking.keeps.items() if groups[name].output}
    places = {name: groups[name].kept[0] for name in hidden}
    found = fates(hidden, places, ranking.masks, view.weights, view.graph()) if hidden else {}
    left = {name: _left(name, dim, view) for name, dim in places.items()}
    return {
        name: _outcome(name, ranking, tie, found.get(name, Fates()), left.get(name, ""))
        for tie in ranking.ties
        for name in tie.sets
        if name in ranking.keeps
    }


def _left(name: str, dim: int, view: View) -> str:
    """Why it is not known what follows the filters of a weight; nothing where it is, and without a channel graph."""
    graph, owner = view.graph(), view.model.get_submodule(name.rpartition(".")[0])
    if graph is None or isinstance(owner, (nn.Embedding, nn.EmbeddingBag)):
        return ""
    use = graph.use(name, dim)
    if use is not None and use.role != "vector":
        return ""
    return reason(graph, int(use.labels[0]) if use is not None else 0)


def _outcome(name: str, ranking: Ranking, tie: Ties, fate: Fates, left: str) -> Outcome:
    keep = ranking.keeps[name]
    found = {1: len(keep)} if tie.single else sizes(tie.sets[name])
    hidden = len(keep) - int(keep.sum())
    asked = ranking.asked.get(name, hidden)
    why = (ranking.limits.get(name) or _misfit(name, tie, found)) if hidden < asked else ""
    ends = fate.removable, fate.inexact, fate.stay, fate.sharers
    return Outcome(len(keep), asked, hidden, found, *ends, left if hidden else "", why)


def _misfit(name: str, tie: Ties, found: Mapping[int, int]) -> str:
    """Why sets did not fill the count."""
    mates = [other for other in tie.sets if other != name]
    text = f"they live or die in sets of {', '.join(str(size) for size in sorted(found))}"
    return text + (f", together with those of {', '.join(mates)}" if mates else "")


@on_cpu
def fates(
    hidden: Mapping[str, Tensor],
    places: Mapping[str, int],
    masks: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    graph: ChannelGraph | None,
) -> dict[str, Fates]:
    """What becomes of hidden filters.

    Args:
        hidden: weight -> which of its filters are hidden (bool, on the CPU).
        places: weight -> the dimension that counts its filters.
        masks: all masks that hide them, those of what follows included.
        weights: the values of all parameters.
        graph: the channel graph.
    """
    if graph is None:
        return {name: Fates(stay=_some({UNKNOWN: int(gone.sum())})) for name, gone in hidden.items()}
    makers = _makers(graph, {label for name in hidden for label in _labels(graph, name, places[name]).tolist()})
    living = {key: ~_dead(*key, masks, weights) for key in makers}
    alive = torch.zeros(graph.count + 1, dtype=torch.bool)
    for (name, dim), lives in living.items():
        alive[_labels(graph, name, dim)[lives]] = True
    return {
        name: _fates(name, gone, _labels(graph, name, places[name]), alive, living, graph)
        for name, gone in hidden.items()
    }


def _fates(
    name: str,
    gone: Tensor,
    labels: Tensor,
    alive: Tensor,
    living: Mapping[tuple[str, int], Tensor],
    graph: ChannelGraph,
) -> Fates:
    found = labels[gone]
    partly = torch.zeros_like(alive)
    partly[labels[~gone]] = True
    frozen = (graph.frozen[found] >= 0) | (found == 0)
    shared = ~frozen & alive[found] & ~partly[found]
    in_part = ~frozen & partly[found]
    goes = found[~(frozen | shared | in_part)]
    inexact = int((graph.inexact[goes] >= 0).sum())
    sharers = _sharers(found[shared], living, graph, graph.aliases.get(name, name))
    reasons = Counter(reason(graph, label) for label in found[frozen].tolist())
    reasons[f"{', '.join(sharers)} {'makes' if len(sharers) == 1 else 'make'} the same channels"] += int(shared.sum())
    reasons[IN_PART] += int(in_part.sum())
    return Fates(len(goes) - inexact, inexact, _some(reasons), sharers)


def _some(reasons: Mapping[str, int]) -> dict[str, int]:
    return {reason: number for reason, number in reasons.items() if number}


def reason(graph: ChannelGraph, label: int) -> str:
    """Why a channel cannot be removed."""
    frozen = int(graph.frozen[label])
    return graph.reasons[frozen] if label and frozen >= 0 else "its outputs are no channels that can be removed"


def _labels(graph: ChannelGraph, name: str, dim: int) -> Tensor:
    use = graph.use(name, dim)
    return use.labels if use else torch.zeros(graph.shapes[graph.aliases.get(name, name)][dim], dtype=torch.int64)


def _makers(graph: ChannelGraph, labels: set[int]) -> list[tuple[str, int]]:
    """The layers that make any of these channels."""
    wanted = torch.zeros(graph.count + 1, dtype=torch.bool)
    wanted[list(labels - {0})] = True
    keys = dict.fromkeys((layer.weight, layer.out_dim) for layer in graph.layers if not layer.depthwise)
    return [key for key in keys if bool(wanted[_labels(graph, *key)].any())]


def _dead(name: str, dim: int, masks: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    """Which filters of a weight are hidden or zero (on the CPU)."""
    values = masks[name] if name in masks else weights[name]
    return ~(values != 0).transpose(0, dim).flatten(1).any(1).cpu()


def _sharers(
    labels: Tensor, living: Mapping[tuple[str, int], Tensor], graph: ChannelGraph, name: str
) -> tuple[str, ...]:
    """The other layers whose living filters make these channels."""
    wanted = torch.zeros(graph.count + 1, dtype=torch.bool)
    wanted[labels] = True
    keys: Iterable[tuple[str, int]] = living
    return tuple(
        other
        for other, dim in keys
        if other != name and bool(wanted[_labels(graph, other, dim)[living[other, dim]]].any())
    )
