"""What must be masked along with a filter so that its channel is dead."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from .base import View

logger = logging.getLogger(__name__)


def cover(masks: Mapping[str, Tensor], keeps: Mapping[str, Tensor], view: View) -> dict[str, Tensor]:
    """Extend masks of filters to the biases and norms that follow.

    Args:
        masks: masks of weights, by parameter.
        keeps: for the same weights, which filters stay (bool, one per filter).
        view: what the pruner is shown; without a channel graph the masks stay as they are.

    Returns:
        The masks with those of the parameters that follow.
    """
    graph = view.graph()
    if graph is None:
        return dict(masks)
    covered = {name: mask.to(view.weights[name]).clone() for name, mask in masks.items()}
    for name, keep in keeps.items():
        pruned = (~keep).nonzero().flatten().cpu()
        for follower, slices in graph.coverage(name, pruned).items():
            mask = covered.get(follower)
            if mask is None:
                mask = covered[follower] = torch.ones_like(view.weights[follower])
            for dim, indices in slices:
                mask.index_fill_(dim, indices.to(mask.device), 0)
    return covered
