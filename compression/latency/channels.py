"""What each channel of a network costs in time: of all layers that make it or read it, in their present widths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from potstill.thinning import ChannelGraph, on_cpu

from .costs import Cost, cost_of
from .layers import calls
from .measure import resized
from .table import LatencyTable

LEAST = 1e-3
"""What a channel costs at least, as a share of the dearest one: time is never saved for nothing."""


def layer_costs(model: nn.Module, graph: ChannelGraph, inputs: Any) -> dict[str, Cost]:
    """Return the time of each layer by its weight, from the table of this device; measure what it lacks.

    Args:
        model: the network, on its device.
        graph: its channels.
        inputs: what it is called with, in the batch size that counts.
    """
    table = LatencyTable(str(next(model.parameters()).device))
    costs = {
        graph.aliases.get(name, name): cost_of(cases, table)
        for name, cases in calls(model, inputs).items()
        if graph.aliases.get(name, name) in graph.shapes
    }
    table.save()
    return costs


@on_cpu
def channel_milliseconds(costs: Mapping[str, Cost], graph: ChannelGraph) -> Tensor:
    """Return by channel id (float64) how much time one channel less saves, while all others stay.

    Layers cost `by_output x outputs + by_input x inputs + by_both x inputs x outputs`: a channel costs its part as an
    output of those that make it, and as an input of those that read it.
    """
    found = torch.zeros(graph.count + 1, dtype=torch.float64)
    for layer in {layer.weight: layer for layer in graph.layers if layer.weight in costs}.values():
        cost, shape = costs[layer.weight], graph.shapes[layer.weight]
        outputs, inputs = shape[layer.out_dim], shape[layer.in_dim] * (1 if layer.depthwise else layer.groups)
        made = graph.channels_of(layer.weight, layer.out_dim)
        found.index_add_(0, made, torch.full(made.shape, cost.by_output + cost.by_both * inputs, dtype=torch.float64))
        if not layer.depthwise:
            read = layer.in_channels
            found.index_add_(
                0, read, torch.full(read.shape, cost.by_input + cost.by_both * outputs, dtype=torch.float64)
            )
    found[0] = 0  # what cannot be removed
    return found.clamp(min=LEAST * float(found.max()))


def channel_costs(model: nn.Module, graph: ChannelGraph, inputs: Any, batch: int) -> Tensor:
    """Return the milliseconds of each channel id at a batch size, measured on the model's device."""
    return channel_milliseconds(layer_costs(model, graph, resized(inputs, batch)), graph)
