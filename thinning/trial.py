"""Try a recipe on the model itself: apply, compare, and take everything back if the function changed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from .apply import carry_out
from .change import Changes
from .check import difference, evaluating, outputs, relative_difference
from .errors import ThinningError
from .inputs import run, tensors_of
from .recipe import Recipe


class Trial:
    """Applies recipes to a model and compares its outputs with those before; `gap` is the last difference."""

    def __init__(
        self, model: nn.Module, masks: Any, optimizer: Optimizer | None, batches: Sequence[Any], tolerance: float
    ) -> None:
        self.model = model
        self.masks = masks
        self.optimizer = optimizer
        self.batches = batches
        self.tolerance = tolerance
        self.gap = 0.0
        self._before: list[list[Tensor]] | None = None

    def attempt(self, recipe: Recipe) -> ThinningError | None:
        """Apply a recipe; the reason why not, with everything as it was, if the outputs are no longer the same."""
        if self._before is None:
            self._before = outputs(self.model, self.batches)
        changes = Changes()
        after: dict[str, Tensor] = {}
        try:
            carry_out(changes, recipe, self.model, self.masks, self.optimizer)
            self.gap = self._compare()
            if self.gap <= self.tolerance:
                changes.forget()
                return None
            after = _module_outputs(self.model, self.batches[-1])
        except ThinningError:
            changes.roll_back()
            raise
        except Exception as error:  # whatever a model's code raises when sizes do not fit
            changes.roll_back()
            return ThinningError(f"the thinned model fails: {type(error).__name__}: {error}")
        except BaseException:
            changes.roll_back()
            raise
        changes.roll_back()
        where = _first_difference(recipe, _module_outputs(self.model, self.batches[-1]), after, self.tolerance)
        return ThinningError(
            f"the thinned model computes another function: max |difference| / max |output| = {self.gap:.1e}, allowed"
            f" {self.tolerance:.0e}; the first tensor that differs is {where}; nothing was changed"
        )

    def _compare(self) -> float:
        return relative_difference(self._before or [], outputs(self.model, self.batches))


def _module_outputs(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    """The first tensor that each module returns, in the order of the calls."""
    results: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _args: Any, out: Any) -> None:
        tensors = tensors_of(out)
        if tensors:
            results.setdefault(name, tensors[0].detach().clone())

    handles = [module.register_forward_hook(partial(keep, name)) for name, module in model.named_modules()]
    try:
        with evaluating(model):
            run(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return results


def _first_difference(recipe: Recipe, before: dict[str, Tensor], after: dict[str, Tensor], tolerance: float) -> str:
    """The first module output that differs, among those whose channels are known on both sides."""
    changes = {change.name: change for change in recipe.tensors}
    for name, tensor in before.items():
        change = changes.get(f"{name}.weight")
        kept = None if change is None else change.keep.get(0)
        other = after.get(name)
        dim = 1 if tensor.ndim == len(change.shape if change else ()) and tensor.ndim > 2 else tensor.ndim - 1
        if kept is not None and change is not None and tensor.ndim and tensor.shape[dim] == change.shape[0]:
            tensor = tensor.index_select(dim, kept.to(tensor.device))
        if other is not None and other.shape == tensor.shape and not difference(tensor, other) <= tolerance:
            return f"the output of '{name or 'the model'}'"
    return "an output of the model"
