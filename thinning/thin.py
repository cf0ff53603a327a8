"""Remove the dead channels of a model, in place, and prove that it computes the same function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from .bisect import without_harmful
from .dead import find_dead
from .errors import ThinningError
from .macs import count_macs
from .plan import make_recipe
from .recipe import Recipe
from .running.copies import named_tensors
from .running.default_device import on_cpu
from .running.input_spec import describe
from .running.inputs import beside
from .running.outputs import randomized
from .trace import analyse
from .unremoved import leftovers, with_measured_refusals
from .verify import Verifier, rounding


@on_cpu
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
    times the largest output (in half precision: than its rounding allows). Where they do and the same in double
    precision shows that only rounding was amplified, the recipe's notes say so. Raises `ThinningError` otherwise, with
    model, masks and optimizer as they were.
    """
    if round_to < 1:
        raise ValueError(f"round_to is a number of channels, 1 or more, not {round_to}")
    weights = named_tensors(model)
    example_inputs, validation_batch = beside(model, example_inputs), beside(model, validation_batch)
    analysis = analyse(model, example_inputs, weights)
    batches = [randomized(example_inputs)] + ([] if validation_batch is None else [validation_batch])
    allowed = float("inf") if allow_inexact else max(tolerance, rounding(model))
    verifier = Verifier(model, masks, optimizer, [example_inputs, *batches], allowed)
    for attempt in range(2 * REPAIRS):
        dead = find_dead(analysis, weights, allow_inexact)
        recipe, gone = make_recipe(analysis, dead, weights, model, round_to)
        recipe = with_measured_refusals(recipe, analysis, dead, weights, model, batches)
        recipe = replace(recipe, refused=recipe.refused + leftovers(analysis, dead, weights))
        size, macs = _size(model), count_macs(model, example_inputs)
        if recipe.removes_nothing:
            return replace(recipe, inputs=describe(example_inputs), parameters=(size, size), macs=(macs, macs))
        failure = verifier.attempt(recipe)
        if failure is None:
            return replace(
                recipe,
                inputs=describe(example_inputs),
                notes=recipe.notes + verifier.notes,
                max_relative_difference=verifier.gap,
                parameters=(size, _size(model)),
                macs=(macs, count_macs(model, example_inputs)),
            )
        if attempt == 0:
            verifier.require_determinism()
        deviation = analysis.rehearse(gone) if attempt < REPAIRS else None
        if deviation is not None:
            analysis = analysis.repaired(deviation, gone)
        elif (rest := without_harmful(analysis, gone, weights, model, verifier)) is not None:
            analysis = rest
        else:
            raise failure
    raise ThinningError(f"no removal worked in {2 * REPAIRS} attempts; the last one failed with: {failure}")


REPAIRS = 30
"""How often a removal that fails is repaired where it leaves the first run's track; then classes are tried in turn."""


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
