"""Remove the dead channels of a model, in place, and prove that it computes the same function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from .apply import carry_out
from .change import Changes
from .check import outputs, randomized, relative_difference
from .copying import named_tensors
from .dead import find_dead
from .errors import ThinningError
from .macs import count_macs
from .plan import make_recipe
from .probe import describe
from .recipe import Recipe
from .trace import traced


def thin(  # noqa: PLR0913
    model: nn.Module,
    example_inputs: Any,
    masks: Any = None,
    optimizer: Optimizer | None = None,
    *,
    allow_inexact: bool = False,
    round_to: int = 1,
    validation_batch: Any = None,
    tolerance: float = 1e-5,
) -> Recipe:
    """Remove every channel that cannot change the outputs; returns what was removed.

    `example_inputs`: a tensor, tuple or dict that the model takes. `masks`: name -> tensor, sliced along. `optimizer`:
    its state is sliced along; its parameters stay the same objects. `allow_inexact` also removes channels that a
    LayerNorm or GroupNorm averages over (then the difference is reported, not checked). `round_to`: numbers of
    channels stay multiples of this.

    The outputs in eval mode, on random inputs and on `validation_batch`, must not change by more than `tolerance`
    times the largest output. Raises `ThinningError` otherwise, with model, masks and optimizer as they were.
    """
    weights = named_tensors(model)
    found = traced(model, example_inputs, weights)
    recipe = make_recipe(found, find_dead(found, weights, allow_inexact), weights, model, round_to)
    if recipe.removes_nothing:
        return recipe
    batches = [randomized(example_inputs)] + ([] if validation_batch is None else [validation_batch])
    before, size, macs = outputs(model, batches), _size(model), count_macs(model, example_inputs)
    changes = Changes()
    try:
        carry_out(changes, recipe, model, masks, optimizer)
        gap = relative_difference(before, outputs(model, batches))
        if not gap <= tolerance and not allow_inexact:
            raise ThinningError(f"the thinned model computes another function: {gap:.1e} > {tolerance:.0e}")
    except Exception:
        changes.roll_back()
        raise
    changes.forget()
    return replace(
        recipe,
        inputs=describe(example_inputs),
        max_relative_difference=gap,
        parameters=(size, _size(model)),
        macs=(macs, count_macs(model, example_inputs)),
    )


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
