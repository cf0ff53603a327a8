"""From the scores of layers to those of channels, and their order over a whole network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from potstill.thinning import ChannelGraph

from .channel_scores import ChannelScore, Outputs
from .scores import mean_by_number

Scope = Literal["global", "normalized", "layer"]
SCOPES: tuple[str, ...] = get_args(Scope)
Per = Literal["channel", "millisecond"]
PERS: tuple[str, ...] = get_args(Per)


def channel_means(
    found: Mapping[str, Tensor], measure: ChannelScore, parameters: Mapping[str, Tensor], graph: ChannelGraph
) -> Tensor:
    """Return the score of each channel id (float64): the mean over the layers that make it, inf where none has one.

    Grouped scores are the mean over all that belongs to the channel: also what reads it, and norms behind it.

    Args:
        found: the scores of the outputs of each weight that makes channels.
        measure: the score itself.
        parameters: by name; what grouped scores look at further.
        graph: which outputs are the same channel.
    """
    made = [(graph.channels_of(name, graph.out_dims[name]), values) for name, values in found.items()]
    further = _further_members(parameters, graph) if measure.grouped else ()
    scored = (*made, *((channels, measure.of(Outputs(rows))) for channels, rows in further))
    # Only what a layer makes is ranked: a channel of the model's input has readers, and no maker.
    unmade = torch.ones(graph.count + 1, dtype=torch.bool, device="cpu")
    for channels, _ in made:
        unmade[channels] = False
    return mean_by_number(graph.count + 1, scored).masked_fill(unmade, torch.inf)


def _further_members(parameters: Mapping[str, Tensor], graph: ChannelGraph) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the channels and the weights, a row for each, of what reads them, of depthwise filters and of norms."""
    for layer in {layer.weight: layer for layer in graph.layers}.values():
        if layer.weight not in parameters:  # a buffer: nothing of it goes
            continue
        weight = parameters[layer.weight].detach()
        if layer.depthwise:
            yield graph.channels_of(layer.weight, layer.out_dim), weight.movedim(layer.out_dim, 0).flatten(1)
        elif graph.use(layer.weight, layer.in_dim) is not None:
            yield graph.channels_of(layer.weight, layer.in_dim), weight.movedim(layer.in_dim, 0).flatten(1)
    for use in graph.uses:
        if use.role == "scale" and use.name in parameters:
            rows = parameters[use.name].detach().movedim(use.dim, 0)
            yield use.channels, rows.reshape(len(use.channels), -1)


def channel_keys(graph: ChannelGraph, scores: Tensor, scope: Scope) -> Tensor:
    """Return what channels are ordered by (float64, by id); inf for those that stay.

    `global` compares scores as they are, `normalized` after division by their mean within each set of channels that
    have the same uses, `layer` by their place within it. The best of each set stays, so that none is emptied.
    """
    keys = torch.full_like(scores, torch.inf)
    for group in graph.classes():
        ids = group.channels
        ids = ids[scores[ids].isfinite()]
        if group.status != "removable" or not len(ids):
            continue
        ordered = ids[scores[ids].argsort(stable=True)]
        if scope == "layer":
            # The place within the set, as a share of it (middles, so that no key is 0 or 1): a cut at 0.3 takes 30 % of
            # each.
            keys[ordered] = (torch.arange(len(ids), dtype=torch.float64) + 0.5) / len(ids)
        else:
            # Layers differ in scale by their fan-in and by what follows them: divided by their mean they can be
            # compared.
            mean = scores[ids].mean() if scope == "normalized" else torch.ones(())
            keys[ids] = scores[ids] / mean if mean > 0 else 0
        # Where some are not scored they stay anyway, so that the set is not emptied.
        if len(ids) == len(group.channels):
            keys[ordered[-1]] = torch.inf
    return keys


def ranked_channels(graph: ChannelGraph, scores: Tensor, scope: Scope, costs: Tensor | None = None) -> Tensor:
    """Return the ids of channels that may go, the lowest first (see `channel_keys`), by what each costs if given."""
    keys = channel_keys(graph, scores, scope) / (1 if costs is None else costs)
    order = keys.argsort(stable=True)
    return order[keys[order].isfinite()]
