"""What must be masked along with a structure so that its channel is dead."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from potstill.thinning import ChannelGraph

from ..parts.structures import Group
from ..processes.shards import fill
from .base import View

logger = logging.getLogger(__name__)
NEEDS_GRAPH = "needs to know what belongs together: give CompressionScheduler example_inputs"
Slices = Mapping[str, Iterable[tuple[int, Tensor]]]


def cover(
    masks: Mapping[str, Tensor], keeps: Mapping[str, Tensor], groups: Mapping[str, Group], view: View
) -> dict[str, Tensor]:
    """Extend masks of filters to the biases and norms that follow.

    Args:
        masks: masks of weights (bool), by parameter.
        keeps: for the same weights, which filters stay (bool, one per filter).
        groups: for the same weights, how their filters lie.
        view: what the pruner is shown; without a channel graph the masks stay as they are, and also in `forward` mode:
            a norm whose weight and bias are lost gets no gradient through the ReLU behind it, so it never comes back.

    Returns:
        The masks with those of the parameters that follow.
    """
    graph = None if view.mode == "forward" else view.graph()
    if graph is None:
        return dict(masks)
    covered = {name: mask.clone() for name, mask in masks.items()}
    for name, keep in keeps.items():
        pruned = (~keep).nonzero().flatten().cpu()
        if len(pruned):
            hide(covered, graph.coverage(name, pruned, dim=groups[name].kept[0]), view)
    return covered


def hide(masks: dict[str, Tensor], slices: Slices, view: View) -> None:
    """Set slices of masks to False; parameters that have no mask yet get one.

    Buffers have none (the scales and shifts of a frozen norm): what they make of a filter of zeros is constant.
    """
    for name, parts in slices.items():
        if name not in view.weights:
            continue
        if name not in masks:
            masks[name] = torch.ones_like(view.weights[name], dtype=torch.bool)
        for dim, indices in parts:
            fill(masks[name], dim, indices, False)


def channel_graph(view: View, who: str) -> ChannelGraph:
    """Return the channel graph.

    Raises:
        ValueError: the scheduler has no example inputs to trace the model with.
    """
    graph = view.graph()
    if graph is None:
        raise ValueError(f"{who} {NEEDS_GRAPH}")
    return graph
