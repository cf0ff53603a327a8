"""From the log of a trace to a channel graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..graph import AttributeUse, ChannelGraph, Layer, Use
from ..label_sets import components
from .entries import FREE, AttributeCount, LayerCall, Link, SplitAxis
from .labels import firsts
from .log import TraceLog


@dataclass(frozen=True)
class Numbering:
    """`labels[id]` is the label of an id as issued; labels are consecutive from 1, 0 is no channel.

    `shared` (bool by label) are those that serve all along an axis of which parts go: how often each is repeated
    there is another size afterwards.
    """

    labels: Tensor
    frozen: Tensor
    inexact: Tensor
    shared: Tensor


def numbering(log: TraceLog) -> Numbering:
    """Unite, settle the split axes and what is shared along them, and number the components."""
    # Which axis of a split is followed depends on what is frozen and united, and following one unites more: repeat
    # until nothing is added. Each round unites at least one pair, so it ends; networks need 1 to 4 rounds.
    root = log.roots()
    free = {id(split.ids) for split in log.splits if split.along == FREE}
    # Rows (queries of one key each) before views: what they unite shows along which axis a view's channels may go. Then
    # what is shared, since an axis chosen before may show that it serves all and need not be united.
    rows = [split for split in log.splits if split.choices]
    views = [split for split in log.splits if not split.choices]
    stages = [(rows, [link for split in rows for link in split.links]), (views, log.links)]
    while True:
        serving = [link for _, links in stages for link in links if id(link.ids) in free or _serves_all(link, root)]
        shared = [(link.shared.reshape(-1), link.why) for link in serving]
        frozen = _marks([*log.frozen, *shared], root, log.count)
        added: list[tuple[Tensor, Tensor]] = []
        for splits, links in stages:
            added = added or [pair for split in splits for pair in _follow_one_axis(split, root, frozen)]
            added = added or [pair for link in links if link not in serving for pair in _linked(link, root)]
        if not added:
            break
        root = components(log.count + 1, added, root)
    # Roots are ids with gaps; labels are consecutive, so that tensors by label are as short as they can be. Id 0 is
    # the smallest root, so "no channel" stays 0.
    present = torch.zeros(log.count + 1, dtype=torch.bool)
    present[root] = True
    kept, labels = present.nonzero().flatten(), (present.cumsum(0) - 1)[root]
    averaged = [split for split in log.splits if split.inexact is not None and _varying(root[split.ids]) - {0}]
    inexact = [(split.ids.reshape(-1), split.inexact or 0) for split in averaged]
    marked = [_marks(marks, root, log.count)[kept] for marks in ([*log.inexact, *inexact], shared)]
    return Numbering(labels, frozen[kept], marked[0], marked[1] >= 0)


def _marks(marked: list[tuple[Tensor, int]], root: Tensor, count: int) -> Tensor:
    """Return the first reason of each root, -1 for none."""
    marks = torch.full((count + 1,), -1)
    if marked:
        ids = torch.cat([ids for ids, _ in marked])
        reasons = torch.repeat_interleave(
            torch.tensor([r for _, r in marked]), torch.tensor([len(i) for i, _ in marked])
        )
        # Reasons are numbered in the order of the run, so the smallest is the first cause, the one worth telling.
        first = torch.full((count + 1,), torch.iinfo(torch.int64).max)
        first.scatter_reduce_(0, root[ids], reasons, "amin")
        marks = torch.where(first < torch.iinfo(torch.int64).max, first, marks)
    marks[0] = -1
    return marks


def _follow_one_axis(split: SplitAxis, root: Tensor, frozen: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Unite the positions of a split axis so that removal follows one of its new axes.

    The last axis along which the channels still differ, unless `split.along` says another.
    """
    ids = root[split.ids]
    # All frozen: nothing goes, and uniting would freeze other channels along with them.
    if split.along == FREE or bool((frozen[ids] >= 0).all()):
        return []
    # Less than two axes that differ: one was chosen before, or a neighbour (a softmax over tokens, say) has united
    # the others.
    differ = sorted(_varying(ids))
    if len(differ) < 2:
        return []
    # Heads come before the width of a head in nearly all code, (heads, width): the last axis keeps the number of heads,
    # which is what code holds as an attribute and divides by.
    # Where what is frozen would freeze all along it (the keys beside the queries in one weight), another one.
    free = [dim for dim in differ if bool((frozen[ids] < 0).movedim(dim, 0).flatten(1).all(1).any())]
    chosen = split.along if split.along in differ else (free or differ)[-1]
    first = firsts(ids, [dim for dim in differ if dim != chosen])
    return [(ids.reshape(-1), first.expand(ids.shape).reshape(-1))]


def _varying(ids: Tensor) -> set[int]:
    """Return the dimensions along which channels differ."""
    return {d for d, size in enumerate(ids.shape) if size > 1 and not bool((ids == ids.narrow(d, 0, 1)).all())}


def _serves_all(link: Link, root: Tensor) -> bool:
    """Return whether removal follows an axis along which `shared` is the same for all."""
    varying = _varying(root[link.ids])
    return bool(varying) and varying.isdisjoint(_varying(link.shared))


def _linked(link: Link, root: Tensor) -> list[tuple[Tensor, Tensor]]:
    a, b = torch.broadcast_tensors(root[link.ids], root[link.shared])
    differ = a != b
    return [(a[differ], b[differ])] if bool(differ.any()) else []


def graph_of(
    log: TraceLog, numbers: Numbering, shapes: dict[str, tuple[int, ...]], aliases: dict[str, str]
) -> ChannelGraph:
    """Return the public view of a trace."""
    free = numbers.frozen < 0
    uses = []
    for (name, dim), ids in log.ids.items():
        labels = numbers.labels[ids]
        channels = torch.where(free[labels], labels, 0)
        role = log.roles.get((name, dim), "vector")
        if not _kernel(labels, numbers, log):
            uses.append(Use(name, dim, channels, role, name.rpartition(".")[0], labels))
    layers = tuple(_layer(entry, numbers.labels, free) for entry in log.layers if not entry.again)
    return ChannelGraph(
        uses=tuple(uses),
        layers=layers,
        shapes=shapes,
        frozen=numbers.frozen,
        inexact=numbers.inexact,
        reasons=tuple(log.reasons),
        aliases=aliases,
        attributes=tuple(
            AttributeUse(n.module, n.name, n.index, numbers.labels[n.ids]) for n in counting(log, numbers)
        ),
        other_macs=log.other_macs,
    )


def counting(log: TraceLog, numbers: Numbering) -> list[AttributeCount]:
    """Return the attributes that count channels: not the width of a head, say, where whole heads go."""
    return [count for count in log.counts if bool((numbers.labels[count.ids] != numbers.labels[count.ids[0]]).any())]


def _kernel(labels: Tensor, numbers: Numbering, log: TraceLog) -> bool:
    """Return whether this is a dimension of a kernel: nobody thinks of its indices as channels."""
    reason = int(numbers.frozen[labels[0]])
    return reason >= 0 and log.reasons[reason].endswith("the size of a kernel")


def _layer(entry: LayerCall, labels: Tensor, free: Tensor) -> Layer:
    reads, makes = labels[entry.in_ids], labels[entry.out_ids]
    return Layer(
        weight=entry.weight,
        bias=entry.bias,
        in_dim=entry.in_dim,
        out_dim=entry.out_dim,
        groups=entry.groups,
        positions=entry.positions,
        in_channels=torch.where(free[reads], reads, 0),
        out_channels=torch.where(free[makes], makes, 0),
        depthwise=entry.depthwise,
        normalized=entry.norm is not None,
        chain=tuple(dict.fromkeys(entry.chain)),
    )
