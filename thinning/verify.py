"""Prove a recipe on the model itself: apply, compare, and take everything back if the function changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .apply import Transaction, apply
from .difference import relative_difference
from .errors import ThinningError
from .module_outputs import amplifies, first_difference, layers_gap, module_outputs, rounding_gaps
from .numbers_given import same_numbers
from .recipe import Recipe
from .running.copies import shared_copy
from .running.outputs import outputs

ROUNDINGS_IN_DOUBLE = 1 / 8
"""Of what half precision may change, the part that folded constants may: they are rounded once."""
MUCH, AS_MUCH = 1e-3, 100
"""A difference above the first is rounding only if other roundings make one of some hundredths of it."""
IN_DOUBLE = 1e-6
"""The difference allowed in double precision, where rounding is far below it."""


GIVEN = "compared on the example inputs only, since random ones are refused: {error}"
CHANGES = "changes them by {:.1e}"
CACHED = (
    "the model's code keeps tensors outside of its modules (a global dictionary, functools.cache) and found one there"
    " from the trace, which runs without numbers: keep them as buffers, or clear that cache ({error})"
)


NOTHING = (
    "the model returns nothing that can be compared: no tensor with elements in what its forward returns (a tuple, a"
    " list, a dict, an object with attributes); whether thinning changes it cannot be checked; nothing was changed"
)


ZEROS = (
    "all outputs of the model are 0 (a last layer that starts as zeros, inputs that are all padding): any removal would"
    " seem exact, so it cannot be checked; nothing was changed"
)


class Verifier:
    """Applies recipes to a model and compares its outputs with those before; `gap` is the last difference."""

    def __init__(
        self, model: nn.Module, masks: Any, optimizer: Optimizer | None, batches: Sequence[Any], tolerance: float
    ) -> None:
        """Take the model and what goes with it, inputs (the first as the user gave them), and what may differ."""
        self.model = model
        self.masks = masks
        self.optimizer = optimizer
        self.batches, self._given = batches[1:], batches[:1]
        self._coarse = ROUNDINGS_IN_DOUBLE * rounding(model)
        self.tolerance = tolerance
        self.gap = 0.0
        self.notes: tuple[str, ...] = ()
        self._inputs: tuple[str, ...] = ()
        self._before: list[list[Tensor]] | None = None
        self._double: list[list[Tensor]] | None = None
        self._amplifies: bool | None = None
        self.why = ""

    def apply(self, recipe: Recipe) -> str | None:
        """Apply a recipe; return why not, with everything as it was, if the outputs are no longer the same."""
        if recipe.removes_nothing:
            self.gap = 0.0
            return None
        first = self._before is None
        if first:
            self._run_dense()
        failure = self._attempt(recipe)
        if failure is not None and first:
            self._require_determinism()
        return failure

    def _run_dense(self) -> None:
        """Keep the outputs before any removal."""
        # Before the first change, from the model itself: nothing that comes later is compared with anything else.
        try:
            self._before = _first_outputs(self.model, self.batches)
        except ThinningError as error:  # code that checks its input (points within an image) takes no random numbers
            self.batches = [*self._given, *self.batches[1:]]
            self._before = _first_outputs(self.model, self.batches)
            self.notes = self._inputs = (GIVEN.format(error=error),)
        # A head that answers 0 to random input (a ReLU at the end, all padding) proves nothing: then the user's own
        # input too.
        if _says_nothing(self._before):
            self.batches = [*self.batches, *self._given]
            self._before = _first_outputs(self.model, self.batches)
        self._must_say_something(self._before)
        if self._coarse:
            self._runs_in_double()

    def _attempt(self, recipe: Recipe) -> str | None:
        empty = next((change for change in recipe.attributes if change.new == 0), None)
        if empty is not None:  # an attribute that was taken for another number
            return f"'{empty.module}.{empty.name}' would become 0"
        # The model itself is changed, not a copy: hooks, buffers and the optimizer's references are as in use, and no
        # second set of weights is needed.
        with Transaction() as transaction:
            transaction.apply(recipe, self.model, self.masks, self.optimizer)
            try:
                self.gap = self._compare()
                if self.gap <= self.tolerance and self._same_to_the_half():
                    transaction.commit()
                    return None
                after = module_outputs(self.model, self.batches[-1])
            except Exception as error:  # whatever a model's code raises when sizes do not fit
                if _of_the_trace(error):
                    raise ThinningError(CACHED.format(error=error)) from error
                return f"the thinned model fails: {type(error).__name__}: {error}"
        # A sort, a threshold or an arg max makes much of a difference of 1e-7; double precision tells rounding (the
        # difference falls by nine orders) from another function (it stays).
        if self._only_rounding(recipe):
            apply(recipe, self.model, self.masks, self.optimizer)
            return None
        where = first_difference(recipe, module_outputs(self.model, self.batches[-1]), after, self.tolerance)
        return (
            f"the thinned model computes another function: max |difference| / max |output| = {self.gap:.1e}, allowed"
            f" {self.tolerance:.0e}; the first tensor that differs is {where}; nothing was changed"
        )

    def _require_determinism(self) -> None:
        """Refuse a model whose outputs are others each time, even with nothing removed."""
        gap = self._compare()
        if not gap <= self.tolerance:
            raise ThinningError(
                f"the model computes something else each time that it runs (difference {gap:.1e} with nothing removed):"
                " whether thinning changes it cannot be checked; nothing was changed"
            )

    def _must_say_something(self, before: list[list[Tensor]]) -> None:
        """Refuse a model that returns nothing to compare, or nothing but NaN and infinity: any other would equal it."""
        tensors = [tensor for batch in before for tensor in batch if tensor.numel()]
        if not tensors:
            raise ThinningError(NOTHING)
        if all(bool((tensor == 0).all()) for tensor in tensors):
            raise ThinningError(ZEROS)
        if any(bool(tensor.isfinite().any()) for tensor in tensors):
            return
        found = module_outputs(self.model, self.batches[-1]).items()
        first = next((name for name, tensor in found if not bool(tensor.isfinite().all())), "")
        raise ThinningError(
            f"all outputs of the model are NaN or infinite, first that of '{first or 'the model'}': whether thinning"
            " changes them cannot be checked; nothing was changed"
        )

    def keeps(self, recipe: Recipe) -> tuple[bool, float]:
        """Return whether the outputs of a copy stay, and the difference; in double precision where that runs.

        `why` says what removing does where they do not.
        """
        # On a copy, since several removals are tried in turn and none of them stays.
        copy = shared_copy(self.model)
        try:
            if self._runs_in_double():
                apply(recipe, copy.double())
                gap = relative_difference(self._double or [], outputs(copy, self.batches, double=True, onward=True))
                self.why = CHANGES.format(gap)
                return gap <= IN_DOUBLE or self._same_until_the_end(recipe, copy), gap
            apply(recipe, copy)
            gap = relative_difference(self._before or [], outputs(copy, self.batches, onward=True))
            self.why = CHANGES.format(gap)
            return gap <= self.tolerance, gap
        except Exception as error:  # whatever a model's code raises when sizes do not fit
            self.why = f"makes the model fail: {type(error).__name__}: {str(error)[:120]}"
            return False, float("inf")

    def _same_to_the_half(self) -> bool:
        """Return whether double precision shows no more, where half precision's rounding hides much."""
        if not self._coarse or not self._double or self.tolerance == float("inf"):
            return True
        gap = relative_difference(self._double, outputs(self.model, self.batches, double=True, onward=True))
        # Above what the folded constants may change: another function, whatever half precision hides.
        self.gap = self.gap if gap <= self._coarse else max(gap, 2 * self.tolerance)
        return gap <= self._coarse

    def _only_rounding(self, recipe: Recipe) -> bool:
        """Return whether the function is the same in double precision: a sort or threshold made much of rounding."""
        if not self._runs_in_double():
            return False
        same, gap = self.keeps(recipe)
        if self.gap > max(MUCH, self.tolerance):  # code may do something else in double precision
            before = self._before or []
            rounds = max(rounding_gaps(self.model, self.batches, before, double=False))
            same = same and self.gap <= AS_MUCH * rounds
        text = f"the outputs differ by {self.gap:.1e}, in double precision by {gap:.1e}: the model amplifies rounding"
        self.notes = (*self._inputs, text) if same else self._inputs
        return same

    def _same_until_the_end(self, recipe: Recipe, copy: nn.Module) -> bool:
        """Return whether layers agree in double precision, where the model as it was makes much of its rounding.

        Scores that are equal but for rounding are sorted in another order: then even double precision differs.
        """
        if self._amplifies is None:
            self._amplifies = amplifies(self.model, self.batches, self._double or [], IN_DOUBLE)
        if not self._amplifies or layers_gap(self.model, copy, recipe, self.batches[-1]) > IN_DOUBLE:
            return False
        # Behind the layers nothing is compared: a width that the code reads there shows in the numbers that it gives.
        return same_numbers(self.model, copy, recipe, self.batches[-1])

    def _runs_in_double(self) -> bool:
        if self._double is None:
            try:
                self._double = outputs(self.model, self.batches, double=True, onward=True)
            except Exception:  # whatever a model's code raises that insists on its own precision
                self._double = []
        return bool(self._double)

    def _compare(self) -> float:
        return relative_difference(self._before or [], outputs(self.model, self.batches, onward=True))


def rounding(model: nn.Module) -> float:
    """Return what the order of a sum may change in half precision, 0 in single precision and better."""
    kinds = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return max((16 * torch.finfo(kind).eps for kind in kinds if kind.itemsize < 4), default=0.0)


def _says_nothing(before: list[list[Tensor]]) -> bool:
    """Return whether some output is the same for all inputs because it is 0, NaN or infinite throughout."""
    if len({len(batch) for batch in before}) != 1:
        return False
    # By output, over all batches: an output that is 0 for one batch may be alive for another.
    places = [[tensor for tensor in place if tensor.is_floating_point()] for place in zip(*before, strict=True)]
    return any(place and not any(bool((t.isfinite() & (t != 0)).any()) for t in place) for place in places)


def _first_outputs(model: nn.Module, batches: Sequence[Any]) -> list[list[Tensor]]:
    try:
        return outputs(model, batches, onward=True)
    except Exception as error:  # whatever a model's code raises
        plain = f"the model fails: {type(error).__name__}: {error}"
        raise ThinningError(CACHED.format(error=error) if _of_the_trace(error) else plain) from error


def _of_the_trace(error: Exception) -> bool:
    """Return whether an error speaks of the meta device, on which the trace ran."""
    return re.search(r"\bmeta\b", str(error)) is not None
