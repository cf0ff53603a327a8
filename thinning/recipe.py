"""A recipe: what thinning removes, as data that can be printed, saved, compared and applied again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from .apply import apply
from .recipe_data import RecipeData
from .recipe_json import decode, encode
from .summary import recipe_text


@dataclass(frozen=True)
class Recipe(RecipeData):
    """What was removed from a model, and how exactly. Printable; `to_json`, `from_json`, `apply`.

    `frozen` lists the channels that can never be removed, `refused` those that were dead but had to stay. `parameters`
    and `macs` are (before, after); `max_relative_difference` the measured max |difference| / max |output|.
    """

    def __str__(self) -> str:
        return recipe_text(self)

    def to_json(self) -> str:
        """The recipe as JSON text."""
        return encode(self)

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Read a recipe; every field is checked and nothing is executed. Raises `ThinningError`."""
        return Recipe(**decode(text))

    def apply(self, model: nn.Module, masks: Any = None, optimizer: Optimizer | None = None) -> None:
        """Remove the same channels from another copy of the model (an average of weights, a fresh dense one), in place.

        Raises `ThinningError`, with nothing changed, if a name or a shape does not fit.
        """
        apply(self, model, masks, optimizer)
