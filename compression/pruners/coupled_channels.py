"""Ranks whole coupled channels: what residual sums and depthwise layers tie together lives or dies as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from potstill.thinning import ChannelGraph, on_cpu

from ..parts.scores import mean_by_number
from ..parts.selection import Share, keep_whole_sets
from ..parts.sharded_structures import any_in
from ..parts.structures import Group
from .base import View
from .cover_channel import channel_graph, hide
from .indivisible import Ties
from .ranking_result import Ranking, reason

Places = Mapping[str, int]
"""Weight -> the dimension that counts its outputs."""


@dataclass
class Cluster:
    """Weights that make the same channels, and the ids of those of their channels that can be removed."""

    names: list[str]
    channels: set[int]


def clusters(names: Iterable[str], places: Places, graph: ChannelGraph) -> list[Cluster]:
    """Return the listed weights, those together whose channels overlap."""
    found: list[Cluster] = []
    for name in names:
        channels = set(graph.channels_of(name, places[name]).tolist()) - {0}
        cluster = Cluster([name], channels)
        for other in [known for known in found if known.channels & channels]:
            found.remove(other)
            cluster = Cluster(other.names + cluster.names, other.channels | cluster.channels)
        found.append(cluster)
    return found


@on_cpu
def rank_coupled(
    asked: Mapping[str, int],
    places: Places,
    score: Callable[[str, int], Tensor],
    number: Callable[[int], int],
    view: View,
) -> Ranking:
    """Kill the lowest-scored channels of each cluster, in all weights that make them.

    Args:
        asked: the listed weights, and how many filters of each may be hidden: a channel that would hide more of one of
            them stays.
        places: the dimension of each that counts its outputs.
        score: weight and dimension -> a score for each output; a channel's is the mean over all that make it.
        number: how many channels of a total to kill.
        view: what the pruner is shown.
    """
    graph = channel_graph(view, "group_type Coupled")
    made = _scores(graph, score)
    masks: dict[str, Tensor] = {}
    keeps: dict[str, Tensor] = {}
    ties = []
    for cluster in clusters(asked, places, graph):
        tie = _numbered({name: graph.channels_of(name, places[name]) for name in cluster.names}, cluster.channels)
        alive = {name: _living(view.alive(name), places[name]) for name in cluster.names}
        total = len(cluster.channels)
        scores = made[sorted(cluster.channels)] if total else made[:0]
        kept = _keep(tie, scores, number(total), {name: asked[name] for name in cluster.names}, alive)
        for name, keep in kept.items():
            pruned = (~keep).nonzero().flatten()
            hide(masks, graph.coverage(name, pruned, dim=places[name], whole_class=True), view)
        keeps |= kept
        ties.append(tie)
    limits = {name: _limit(graph.channels_of(name, dim), name, dim, graph) for name, dim in places.items()}
    return Ranking(masks, keeps, asked, ties, limits)


def _numbered(channels: Mapping[str, Tensor], removable: set[int]) -> Ties:
    """Return the filters of each channel as a set, in the order of the ids.

    Those that cannot be removed alone, behind.
    """
    ids = torch.tensor(sorted(removable), dtype=torch.int64)
    sets, begin = {}, len(ids)
    for name, found in channels.items():
        # Filters without a channel (the classes of the last layer, say) are numbered behind the others, where no
        # ranking reaches them.
        frozen = found == 0
        numbers = torch.searchsorted(ids, found) if len(ids) else torch.zeros_like(found)
        numbers[frozen] = torch.arange(begin, begin + int(frozen.sum()))
        begin += int(frozen.sum())
        sets[name] = numbers
    return Ties(sets, single=False)


def _keep(
    tie: Ties, scores: Tensor, number: int, asked: Mapping[str, int], alive: Mapping[str, Tensor | None]
) -> dict[str, Tensor]:
    """Return which filters stay (bool): `number` channels go, but no more filters of a weight than are asked."""
    total = len(scores)
    lives = torch.zeros(total, dtype=torch.bool)
    shares = []
    for name, sets in tie.sets.items():
        removable = sets < total
        living = torch.ones_like(removable) if (given := alive[name]) is None else given
        lives[sets[removable & living]] = True
        gone = int((~living[~removable]).sum())
        shares.append(Share(sets[removable], asked[name] - gone, living[removable]))
    # Two limits at once: so many channels of the cluster, and of each weight no more filters than are asked (a channel
    # may have several of one weight).
    channels = Share(torch.arange(total), number, lives)
    kept = keep_whole_sets(scores, [channels, *shares])[1:] if total else [share.living for share in shares]
    keeps = {}
    for (name, sets), keep in zip(tie.sets.items(), kept, strict=True):
        keeps[name] = torch.ones_like(sets, dtype=torch.bool) if (given := alive[name]) is None else given.clone()
        keeps[name][sets < total] = keep
    return keeps


def _living(alive: Tensor | None, dim: int) -> Tensor | None:
    return None if alive is None else any_in(Group((dim,), 1), alive).cpu()


def _limit(channels: Tensor, name: str, dim: int, graph: ChannelGraph) -> str:
    """Return why a weight has filters that no ranking of channels takes; nothing where it has none."""
    frozen = (channels == 0).nonzero().flatten()
    if not len(frozen):
        return ""
    use = graph.use(name, dim)
    why = reason(graph, int(use.labels[frozen[0]]) if use else 0)
    return f"{len(frozen)} of its {len(channels)} filters cannot be removed ({why})"


def _scores(graph: ChannelGraph, score: Callable[[str, int], Tensor]) -> Tensor:
    """Return the score of each channel id: the mean over the outputs of all layers that make it, else inf."""
    makers = dict.fromkeys((layer.weight, layer.out_dim) for layer in graph.layers if not layer.depthwise)
    return mean_by_number(graph.count + 1, ((graph.channels_of(*maker), score(*maker)) for maker in makers))
