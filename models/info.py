"""What is known of a network before it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class ModelError(ValueError):
    """A network cannot be built as asked; the message is one line that says why and what to do."""


@dataclass(frozen=True)
class ModelInfo:
    """What a network expects when nothing else is said.

    `input_shape` is (channels, height, width); `source` is "potstill", "torchvision", "timm" or "transformers". `mean`
    and `std` are what its trained weights expect images to be normalised by, None where that is the data set's affair.
    `config` is what a network of transformers is built from: plain data.
    """

    name: str
    input_shape: tuple[int, int, int]
    num_classes: int
    description: str
    source: str = "potstill"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    config: Mapping[str, Any] | None = field(default=None, repr=False)
