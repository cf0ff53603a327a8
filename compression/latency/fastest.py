"""The fastest of the networks that one removal can leave: multiples of widths and memory layouts, by measurement."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from potstill.thinning import thin

from .measure import milliseconds, resized

logger = logging.getLogger(__name__)
MULTIPLES = (1, 4, 8, 16)
"""What is tried: vector units take 4 to 16 float32 at once."""
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
WORTH = 0.97
"""A network with more parameters, or another layout, is taken where its time is at most this share."""


@dataclass(frozen=True)
class Choice:
    """A way to thin: numbers of channels are multiples of `multiple`; and the layout of the weights' memory."""

    multiple: int
    layout: str


def fastest(
    model: nn.Module, inputs: Any, batches: Sequence[int] = (1,), allow_inexact: bool = False, seconds: float = 0.5
) -> Choice:
    """Return how to thin a masked network so that it runs fastest: the geometric mean over the batch sizes counts.

    Each candidate is a thinned copy; they run in turn. The network itself stays as it is.

    Args:
        model: the network, its dead channels zero.
        inputs: what it is called with.
        batches: sizes of minibatches.
        allow_inexact: see `thin`.
        seconds: about how long each candidate is measured at each size.

    Raises:
        ThinningError: a thinned copy computes another function.
    """
    candidates: dict[Choice, nn.Module] = {}
    seen: set[int] = set()
    for multiple in MULTIPLES:
        small = copy.deepcopy(model)
        size = thin(small, inputs, allow_inexact=allow_inexact, round_to=multiple).parameters[1]
        if size in seen:  # the widths of a smaller multiple
            continue
        seen.add(size)
        for layout, form in LAYOUTS.items():
            candidates[Choice(multiple, layout)] = copy.deepcopy(small).to(memory_format=form)
    times = [milliseconds(list(candidates.values()), resized(inputs, batch), seconds) for batch in batches]
    means = {choice: prod(column) for choice, column in zip(candidates, zip(*times, strict=True), strict=True)}
    best = next(iter(means))
    for choice, mean in means.items():  # in the order of parameters
        if mean <= means[best] * WORTH ** len(batches):
            best = choice
    first = means[Choice(1, "channels_last")]
    for choice, mean in means.items():
        logger.info(
            "multiples of %2d, %s: %.3f of the time of the narrowest network%s", choice.multiple, choice.layout,
            (mean / first) ** (1 / len(batches)), ": taken" if choice == best else "",
        )  # fmt: skip
    return best
