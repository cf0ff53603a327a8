"""Prune channels now, without a schedule: rank all of a network, fit a target, remove, prove."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from potstill.thinning import ChannelGraph, Recipe, on_cpu, thin, trace

from .channel_statistics import Losses, layer_scores
from .latency.channels import channel_costs
from .parts.channel_ranking import PERS, SCOPES, Per, Scope, channel_means, ranked_channels
from .parts.channel_scores import find_score

logger = logging.getLogger(__name__)


@on_cpu
def prune_channels(  # noqa: PLR0913 -- keywords
    model: nn.Module,
    example_inputs: Any,
    sparsity: float | None = None,
    macs: float | None = None,
    score: str = "l1",
    scope: Scope = "normalized",
    losses: Losses | None = None,
    *,
    per: Per = "channel",
    latency_batch: int = 1,
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
        per: `channel` removes those of lowest score; `millisecond` those whose score is lowest for the time that the
            channel takes in the layers that make and read it, measured on the model's device.
        latency_batch: batch size of that time.

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
    if scope not in SCOPES:
        raise ValueError(f"scope is global, normalized or layer, not {scope!r}")
    if per not in PERS:
        raise ValueError(f"per is channel or millisecond, not {per!r}")
    if latency_batch < 1:
        raise ValueError(f"latency_batch must be at least 1, not {latency_batch}")
    graph = trace(model, example_inputs)
    costs = channel_costs(model, graph, example_inputs, latency_batch) if per == "millisecond" else None
    ranked = ranked_channels(graph, score_channels(model, graph, score, losses), scope, costs)
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


def score_channels(model: nn.Module, graph: ChannelGraph, score: str, losses: Losses | None = None) -> Tensor:
    """Return the score of each channel id (see `channel_means`).

    Raises:
        ValueError: there is no such score, it misses `losses`, or no layer has what it looks at.
    """
    measure = find_score(score)
    found = layer_scores(model, graph, measure, losses)
    if not found:
        raise ValueError(f"score {score!r} fits no layer of the model")
    return channel_means(found, measure, dict(model.named_parameters()), graph)


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
        # Some 15 sizes for a network of 20,000 channels, each a sum over the graph; trying thinning itself would take
        # seconds each.
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
