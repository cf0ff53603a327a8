"""How much the outputs would change if constants that cannot be folded exactly were dropped all the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from .apply import apply
from .check import outputs, relative_difference
from .copying import shared_copy
from .dead import Dead
from .plan import make_recipe
from .recipe import Recipe
from .trace import Traced


def with_measured_refusals(
    recipe: Recipe, traced: Traced, dead: Dead, weights: Mapping[str, Tensor], model: nn.Module, batches: Sequence[Any]
) -> Recipe:
    """The recipe, its refusals with the difference that removing those channels (folded as far as it goes) makes."""
    if not recipe.refused:
        return recipe
    every = dead.channels.clone()
    every[list(dead.stuck)] = True
    forced, _ = make_recipe(traced, Dead(every), weights, model)
    copy = shared_copy(model)
    before = outputs(model, batches)
    try:
        apply(forced, copy)
        gap = f"{relative_difference(before, outputs(copy, batches)):.1e}"
    except Exception:  # only a remark is lost: the channels stay either way
        return recipe
    text = f"; removing all of these would change the output by {gap} of its maximum"
    return replace(recipe, refused=tuple(replace(kept, reason=kept.reason + text) for kept in recipe.refused))
