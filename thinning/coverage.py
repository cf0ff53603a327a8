"""Which slices must be zero, or be multiplied by a gate, for a channel to die."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .errors import ThinningError
from .graph_data import GraphData, Layer, Scale, Slices, Use
from .places import on_cpu


@on_cpu
def coverage_of(
    graph: GraphData, name: str, indices: Iterable[int] | Tensor, dim: int = 0, whole_class: bool = False
) -> Slices:
    """See `ChannelGraph.coverage`."""
    chosen = torch.as_tensor(list(indices) if not isinstance(indices, Tensor) else indices.cpu(), dtype=torch.int64)
    use = graph.use(name, dim)
    if use is None:
        return {name: [(dim, chosen)]}
    if len(chosen) and not -len(use.labels) <= int(chosen.min()) <= int(chosen.max()) < len(use.labels):
        raise ThinningError(
            f"'{name}' has {len(use.labels)} channels in dimension {dim}; got indices {chosen.tolist()}"
        )
    labels = torch.zeros(graph.count + 1, dtype=torch.bool)
    labels[use.labels[chosen]] = True
    labels[0] = False
    shared = _roots(graph) > 1
    everywhere = labels if whole_class else labels & ~shared
    slices: Slices = {}
    for other in graph.uses:
        wanted = everywhere if other.role in ("out", "scale", "shift") else None
        if (other.name, other.dim) in _own(graph, name, use.dim):
            wanted = labels
        if wanted is not None and (found := wanted[other.labels].nonzero().flatten()).numel():
            slices.setdefault(other.name, []).append((other.dim, found))
    return slices


def _own(graph: GraphData, name: str, dim: int) -> set[tuple[str, int]]:
    own = {(name, dim)}
    for layer in graph.layers:
        if layer.weight == name and layer.out_dim == dim:
            own.update(layer.chain)
            if layer.bias is not None:
                own.add((layer.bias, 0))
    return own


def _roots(graph: GraphData) -> Tensor:
    """How many different weights produce each label (depthwise filters pass it on, so they do not count)."""
    count = torch.zeros(graph.count + 1, dtype=torch.int64)
    producers = {(layer.weight, layer.out_dim) for layer in graph.layers if not layer.depthwise}
    for weight, dim in producers:
        if (use := graph.use(weight, dim)) is not None:
            count[use.labels.unique()] += 1
    return count


@on_cpu
def scales_of(graph: GraphData, channels: Iterable[int] | Tensor) -> list[Scale]:
    """See `ChannelGraph.scales`."""
    wanted = torch.zeros(graph.count + 1, dtype=torch.bool)
    wanted[torch.as_tensor(list(channels) if not isinstance(channels, Tensor) else channels.cpu())] = True
    wanted[0] = False
    plain = {key for layer in graph.layers if not layer.normalized for key in _made_by(layer)}
    scales = []
    for use in graph.uses:
        if use.role in ("scale", "shift") or (use.name, use.dim) in plain:
            scales += _scales(use, wanted)
    return scales


def _made_by(layer: Layer) -> list[tuple[str, int]]:
    return [(layer.weight, layer.out_dim)] + ([(layer.bias, 0)] if layer.bias is not None else [])


def _scales(use: Use, wanted: Tensor) -> list[Scale]:
    found = wanted[use.channels].nonzero().flatten().tolist()
    return [Scale(use.name, use.dim, index, int(use.channels[index])) for index in found]
