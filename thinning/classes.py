"""Groups channels that have the same uses."""

from __future__ import annotations

import torch
from torch import Tensor

from .graph import ChannelClass, ChannelGraph


def signatures(graph: ChannelGraph) -> Tensor:
    """A number per label that is the same for labels with the same uses, as often, and the same status."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(-(2**62), 2**62, (len(graph.uses) + 2,), generator=generator)
    signature = numbers[-1] * graph.frozen + numbers[-2] * graph.inexact
    for number, use in zip(numbers, graph.uses, strict=False):
        signature.index_add_(0, use.labels, number.expand(len(use.labels)))
    return signature


def classes_of(graph: ChannelGraph) -> list[ChannelClass]:
    """See `ChannelGraph.classes`; in the order of their first use."""
    used: dict[int, list[int]] = {}
    _, group = signatures(graph).unique(return_inverse=True)
    for position, use in enumerate(graph.uses):
        for index in group[use.labels[use.labels > 0]].unique().tolist():
            used.setdefault(index, []).append(position)
    members = _members(group)
    return [_one(graph, members[index], positions) for index, positions in used.items()]


def _members(group: Tensor) -> list[Tensor]:
    order = group[1:].argsort(stable=True) + 1
    return list(order.split(group[1:].bincount(minlength=int(group.max()) + 1).tolist()))


def _one(graph: ChannelGraph, labels: Tensor, positions: list[int]) -> ChannelClass:
    uses = tuple((use.name, use.dim, use.role) for use in (graph.uses[position] for position in positions))
    first = int(labels[0])
    if graph.frozen[first] >= 0:
        return ChannelClass("frozen", graph.reasons[int(graph.frozen[first])], labels, uses)
    if graph.inexact[first] >= 0:
        return ChannelClass("inexact", graph.reasons[int(graph.inexact[first])], labels, uses)
    return ChannelClass("removable", "", labels, uses)
