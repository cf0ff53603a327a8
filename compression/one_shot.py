"""Prune channels now, without a schedule: rank all of a network, fit a target, remove, prove."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from potstill.thinning import ChannelGraph, Recipe, on_cpu, thin, trace

from .channel_statistics import Losses, layer_scores
from .parts.channel_scores import Outputs, find_score

logger = logging.getLogger(__name__)
Scope = Literal["global", "normalized", "layer"]


@on_cpu
def prune_channels(
    model: nn.Module,
    example_inputs: Any,
    sparsity: float | None = None,
    macs: float | None = None,
    score: str = "l1",
    scope: Scope = "normalized",
    losses: Losses | None = None,
) -> Recipe:
    """Remove the channels of a model that matter least, in place, down to a target, and prove the removal.

    Channels that residual sums, depthwise layers and the like tie together are one unit; its score is the mean over all
    layers that make it. Units go by ascending score, as few as reach the target.

    Args:
        model: the network.
        example_inputs: what it is called with.
        sparsity: the share of its parameters to remove; or
        macs: the share of its multiply-adds to keep.
        score: `l1`, `l2`, `bn_scale`, `fpgm`, `lamp`, `taylor`, `hessian`, `activation` or `random`
            (see `parts.channel_scores`).
        scope: `global` compares scores over the whole network as they are, `normalized` after division by their mean
            within each set of layers that make the same channels, `layer` takes the same share of each such set.
        losses: runs the model on minibatches and yields the loss of each; for `taylor`, `hessian` and `activation`.

    Returns:
        The recipe: what was removed, sizes before and after, the difference measured between the network with these
        channels as zeros and the thinned one.

    Raises:
        ValueError: not exactly one of `sparsity` and `macs` is given, or it is out of range or out of reach.
        ThinningError: the thinned network computes another function. The model is as it was in either case.
    """
    if (sparsity is None) == (macs is None):
        raise ValueError("give exactly one of sparsity (share of parameters to remove) and macs (share to keep)")
    wanted = sparsity if sparsity is not None else 1 - (macs or 0)
    if not 0 < wanted < 1:
        raise ValueError(f"the target must lie between 0 and 1, not {sparsity if sparsity is not None else macs}")
    if scope not in ("global", "normalized", "layer"):
        raise ValueError(f"scope is global, normalized or layer, not {scope!r}")
    graph = trace(model, example_inputs)
    ranked = _ranked(graph, channel_scores_of(model, graph, score, losses), scope)
    fit = _Fit(graph, ranked, "parameters" if sparsity is not None else "multiply-adds", dict(model.named_parameters()))
    dead = fit.fewest(wanted)
    with zeroed(model, graph, dead):
        recipe = thin(model, example_inputs)
    before, after = recipe.parameters if sparsity is not None else recipe.macs
    if 1 - after / before < wanted - 1e-3:
        logger.warning(
            "asked to remove %.2f%% of the %s, removed %.2f%%", 100 * wanted, fit.of, 100 - 100 * after / before
        )
    return recipe


def channel_scores_of(model: nn.Module, graph: ChannelGraph, score: str, losses: Losses | None = None) -> Tensor:
    """Return the score of each channel id (float64): the mean over the layers that make it, inf where none has one.

    Grouped scores are the mean over all that belongs to the channel: also what reads it, and norms behind it.

    Raises:
        ValueError: there is no such score, it misses `losses`, or no layer has what it looks at.
    """
    total = torch.zeros(graph.count + 1, dtype=torch.float64)
    members = torch.zeros(graph.count + 1, dtype=torch.float64)
    measure = find_score(score)
    found = layer_scores(model, graph, measure, losses)
    layers = {layer.weight: layer.out_dim for layer in graph.layers if not layer.depthwise}
    if not found:
        raise ValueError(f"score {score!r} fits no layer of the model")
    for name, values in found.items():
        channels = graph.channels_of(name, layers[name])
        total.index_add_(0, channels, values)
        members.index_add_(0, channels, torch.ones_like(values))
    made = members > 0
    for channels, rows in _further_members(model, graph) if measure.grouped else ():
        total.index_add_(0, channels, measure.of(Outputs(rows)).double().cpu())
        members.index_add_(0, channels, torch.ones(len(channels), dtype=torch.float64))
    return torch.where(made, total / members, torch.inf)


def _further_members(model: nn.Module, graph: ChannelGraph) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the channels and the weights, a row for each, of what reads them, of depthwise filters and of norms."""
    parameters = dict(model.named_parameters())
    for layer in {layer.weight: layer for layer in graph.layers}.values():
        weight = parameters[layer.weight].detach()
        if layer.depthwise:
            yield graph.channels_of(layer.weight, layer.out_dim), weight.movedim(layer.out_dim, 0).flatten(1)
        elif graph.use(layer.weight, layer.in_dim) is not None:
            yield graph.channels_of(layer.weight, layer.in_dim), weight.movedim(layer.in_dim, 0).flatten(1)
    for use in graph.uses:
        if use.role == "scale" and use.name in parameters:
            yield (
                use.channels,
                parameters[use.name].detach().movedim(use.dim, 0).flatten().reshape(len(use.channels), -1),
            )


def _ranked(graph: ChannelGraph, scores: Tensor, scope: Scope) -> Tensor:
    """Return the ids of channels that may go, lowest first; the best of each class stays, so that none is emptied."""
    keys = torch.full_like(scores, torch.inf)
    for group in graph.classes():
        ids = group.channels
        ids = ids[scores[ids].isfinite()]
        if group.status != "removable" or not len(ids):
            continue
        ordered = ids[scores[ids].argsort(stable=True)]
        if scope == "layer":
            keys[ordered] = (torch.arange(len(ids), dtype=torch.float64) + 0.5) / len(ids)
        else:
            mean = scores[ids].mean() if scope == "normalized" else torch.ones(())
            keys[ids] = scores[ids] / mean if mean > 0 else 0
        if len(ids) == len(group.channels):
            keys[ordered[-1]] = torch.inf
    order = keys.argsort(stable=True)
    return order[keys[order].isfinite()]


class _Fit:
    """Finds how many channels have to go."""

    def __init__(self, graph: ChannelGraph, ranked: Tensor, of: str, parameters: dict[str, Tensor]) -> None:
        self.graph, self.ranked, self.of = graph, ranked, of
        self.names = [name for name in parameters if name in graph.shapes]

    def share(self, number: int) -> float:
        """Return the share that goes with the `number` lowest channels."""
        alive = torch.ones(self.graph.count + 1, dtype=torch.float64)
        whole = self._size(alive)
        alive[self.ranked[:number]] = 0
        return 1 - self._size(alive) / whole

    def _size(self, alive: Tensor) -> float:
        if self.of == "parameters":
            return float(self.graph.parameter_count(alive, self.names))
        return float(self.graph.macs(alive))

    def fewest(self, wanted: float) -> Tensor:
        """Return the ids of the fewest channels whose removal reaches the share.

        Raises:
            ValueError: all of them do not.
        """
        low, high = 0, len(self.ranked)
        reachable = self.share(high)
        if reachable < wanted:
            raise ValueError(
                f"{wanted:.2%} of the {self.of} cannot be removed: with one channel left of each kind {reachable:.2%}"
                " go. print(channels_text(trace(model, example_inputs))) of potstill.thinning tells what stays and why"
            )
        while low < high:  # the share only grows with the number
            middle = (low + high) // 2
            low, high = (low, middle) if self.share(middle) >= wanted else (middle + 1, high)
        return self.ranked[:low]


@contextmanager
def zeroed(model: nn.Module, graph: ChannelGraph, dead: Tensor) -> Iterator[None]:
    """Set all that makes these channels to zero; take it back if an error comes."""
    parameters = dict(model.named_parameters())
    gone = torch.zeros(graph.count + 1, dtype=torch.bool)
    gone[dead] = True
    saved: dict[str, Tensor] = {}
    for use in graph.uses:
        indices = gone[use.channels].nonzero().flatten()
        if use.role in ("out", "scale", "shift") and use.name in parameters and len(indices):
            data = parameters[use.name].data
            saved.setdefault(use.name, data.clone())
            data.index_fill_(use.dim, indices.to(data.device), 0)
    try:
        yield
    except BaseException:
        for name, data in saved.items():
            parameters[name].data.copy_(data)
        raise
