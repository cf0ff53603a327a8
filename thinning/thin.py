"""Remove the dead channels of a model, in place, and prove that it computes the same function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from .axes import best_axes
from .bisect import without_harmful
from .dead import Dead, find_dead
from .errors import ThinningError
from .macs import count_macs
from .names import unwrapped
from .odd_widths import fit_layouts
from .plan import make_recipe
from .recipe import Recipe, remember
from .running.copies import named_tensors, renew_caches, shared_copy
from .running.default_device import on_cpu
from .running.input_spec import describe
from .running.inputs import beside
from .running.outputs import randomized
from .running.sharded import refuse_sharded
from .trace import Analysis, analyse
from .unremoved import measured_refusals, with_measured_gap
from .verify import Verifier, rounding
from .zeros import zeros_that_stay

REPAIRS = 30
"""How often a removal that fails is repaired where it leaves the first run's track; then classes are tried in turn.

Most networks need none, odd ones 1 to 5; each costs a run of a copy on the meta device.
"""


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
    add_bias: bool = False,
) -> Recipe:
    """Remove every channel that cannot change the outputs; return what was removed.

    `example_inputs`: a tensor, tuple or dict that the model takes. `masks`: name -> tensor, or a scheduler's masks,
    sliced along. `optimizer`: its state is sliced along; its parameters stay the same objects. `allow_inexact` also
    removes channels that a LayerNorm or GroupNorm averages over (then the difference is reported, not checked).
    `round_to`: numbers of channels stay multiples of this. `add_bias` gives layers without a bias one where it takes
    the constants of channels that go; the optimizer holds it beside the layer's weight.

    The outputs in eval mode, on random inputs and on `validation_batch`, must not change by more than `tolerance`
    times the largest output (in half precision: than its rounding allows). Where they do and the same in double
    precision shows that only rounding was amplified, the recipe's notes say so. Raises `ThinningError` otherwise, with
    model, masks and optimizer as they were.
    """
    model = unwrapped(model)
    refuse_sharded(model)
    renew_caches(model)
    if round_to < 1:
        raise ValueError(f"round_to is a number of channels, 1 or more, not {round_to}")
    example_inputs, validation_batch = beside(model, example_inputs), beside(model, validation_batch)
    batches = [randomized(example_inputs)] + ([] if validation_batch is None else [validation_batch])
    allowed = float("inf") if allow_inexact else max(tolerance, rounding(model))
    verifier = Verifier(model, masks, optimizer, [example_inputs, *batches], allowed)
    # Thinning gives parameters new memory: `dense` and `weights` go on to show the old values, at no cost before.
    dense, weights = shared_copy(model), {name: tensor.detach() for name, tensor in named_tensors(model).items()}
    analysis = replace(analyse(model, example_inputs, weights), add_bias=add_bias)
    analysis = best_axes(analysis, weights, allow_inexact)
    recipe, analysis, dead, gone = _removed(model, weights, analysis, verifier, allow_inexact, round_to)
    macs, size = analysis.log.macs, _size(dense)
    zeros = with_measured_gap(
        zeros_that_stay(analysis, dead, weights, gone), analysis, weights, dense, verifier.batches
    )
    refused = measured_refusals(recipe, analysis, dead, dense, verifier.batches) if recipe.refused else ()
    recipe = replace(
        recipe,
        inputs=describe(example_inputs),
        refused=(*refused, *zeros),
        notes=recipe.notes + verifier.notes,
        max_relative_difference=verifier.gap,
        parameters=(size, _size(model)),
        macs=(macs, macs if recipe.removes_nothing else count_macs(model, example_inputs)),
    )
    fit_layouts(model)
    remember(model, recipe)
    return recipe


def _removed(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    analysis: Analysis,
    verifier: Verifier,
    allow_inexact: bool,
    round_to: int,
) -> tuple[Recipe, Analysis, Dead, Tensor]:
    """Remove what is dead; where that fails, learn from it and try again.

    Returns:
        What was removed, the analysis that says so, what is dead by it, and which of that went.
    """
    for attempt in range(2 * REPAIRS):
        dead = find_dead(analysis, weights, allow_inexact)
        recipe, gone = make_recipe(analysis, dead, weights, model, round_to)
        failure = verifier.apply(recipe)
        if failure is None:
            return recipe, analysis, dead, gone
        repaired = analysis.repaired(gone) if attempt < REPAIRS else None
        repaired = repaired or without_harmful(analysis, gone, weights, model, verifier)
        if repaired is None:
            raise ThinningError(failure)
        analysis = repaired
    raise ThinningError(f"no removal worked in {2 * REPAIRS} attempts; the last one failed with: {failure}")


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
