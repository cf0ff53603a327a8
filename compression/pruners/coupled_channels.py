"""Ranks whole coupled channels: what residual sums and depthwise layers tie together lives or dies as one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from potstill.thinning import ChannelGraph, on_cpu

from ..parts.selection import keep_highest
from .base import View
from .cover_channel import channel_graph, hide

logger = logging.getLogger(__name__)
Places = Mapping[str, int]
"""Weight -> the dimension that counts its outputs."""


@dataclass
class Cluster:
    """Weights that make the same channels, and the ids of those of their channels that can be removed."""

    names: list[str]
    channels: set[int]


def clusters(names: Iterable[str], places: Places, graph: ChannelGraph) -> list[Cluster]:
    """The listed weights, those together whose channels overlap."""
    found: list[Cluster] = []
    for name in names:
        channels = set(graph.channels_of(name, places[name]).tolist()) - {0}
        if not channels:
            logger.warning("%s: none of its channels can be removed, so none is pruned", name)
            continue
        cluster = Cluster([name], channels)
        for other in [known for known in found if known.channels & channels]:
            found.remove(other)
            cluster = Cluster(other.names + cluster.names, other.channels | cluster.channels)
        found.append(cluster)
    return found


@on_cpu
def coupled_masks(
    names: Iterable[str],
    places: Places,
    score: Callable[[str, int], Tensor],
    number: Callable[[int], int],
    view: View,
) -> dict[str, Tensor]:
    """Masks that kill the lowest-scored channels of each cluster, in all weights that make them.

    Args:
        names: the listed weights.
        places: the dimension of each that counts its outputs.
        score: weight and dimension -> a score for each output; a channel's is the mean over all that make it.
        number: how many channels of a total to kill.
        view: what the pruner is shown.
    """
    graph = channel_graph(view, "group_type Coupled")
    masks: dict[str, Tensor] = {}
    for cluster in clusters(names, places, graph):
        ids = torch.tensor(sorted(cluster.channels))
        scores = _scores(graph, score)[ids]
        keep = keep_highest(scores, number(len(ids)), _alive(cluster, places, graph, view, ids))
        dead = torch.zeros(graph.count + 1, dtype=torch.bool)
        dead[ids[~keep]] = True
        for name in cluster.names:
            dim = places[name]
            indices = dead[graph.channels_of(name, dim)].nonzero().flatten()
            hide(masks, graph.coverage(name, indices, dim=dim, whole_class=True), view)
    return masks


def _scores(graph: ChannelGraph, score: Callable[[str, int], Tensor]) -> Tensor:
    """The score of each channel id: the mean over the outputs of all layers that make it, inf where none does."""
    total = torch.zeros(graph.count + 1, dtype=torch.float64)
    makers = torch.zeros(graph.count + 1, dtype=torch.float64)
    for weight, dim in {(layer.weight, layer.out_dim): None for layer in graph.layers if not layer.depthwise}:
        channels = graph.channels_of(weight, dim)
        total.index_add_(0, channels, score(weight, dim).double().cpu())
        makers.index_add_(0, channels, torch.ones(len(channels), dtype=torch.float64))
    return torch.where(makers > 0, total / makers, torch.inf)


def _alive(cluster: Cluster, places: Places, graph: ChannelGraph, view: View, ids: Tensor) -> Tensor | None:
    living = torch.zeros(graph.count + 1, dtype=torch.bool)
    for name in cluster.names:
        mask = view.alive(name)
        if mask is None:
            return None
        outputs = mask.transpose(0, places[name]).flatten(1).any(1).cpu()
        living[graph.channels_of(name, places[name])[outputs]] = True
    return living[ids]
