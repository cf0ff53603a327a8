"""The numbers that a network's code gives to its operations: a width that it reads at run time shows there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .recipe import Recipe
from .running.copies import shared_copy
from .running.inputs import run
from .running.outputs import in_double
from .running.run import fixed_chance

FEW = 16
"""Constants of at most so many elements are numbers that the code gives."""


class _Numbers(TorchDispatchMode):
    """Lists each operation with the numbers that are given to it, sizes and dimensions apart."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[Any, list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Carry an operation out and note it."""
        out = func(*args, **(kwargs or {}))
        self.given.append((func, [*_numbers(func, args, kwargs or {}), *_constants(func, out)]))
        return out


def _numbers(func: Any, args: Any, kwargs: Mapping[str, Any]) -> list[Any]:
    """Return floats, and integers where a float could stand."""
    named = {argument.name: argument for argument in func._schema.arguments}
    values = {**dict(zip(named, args, strict=False)), **kwargs}
    return [
        value
        for name, value in values.items()
        if type(value) is float or (type(value) in (int, complex) and "number" in str(named[name].type))
    ]


def _constants(func: Any, out: Any) -> list[Any]:
    made = func is torch.ops.aten.lift_fresh.default and isinstance(out, Tensor) and out.numel() <= FEW
    return out.flatten().tolist() if made else []


@torch.no_grad()
def same_numbers(model: nn.Module, thinned: nn.Module, recipe: Recipe, batch: Any) -> bool:
    """Return whether a thinned copy gives its operations the numbers that the model gives them.

    As far as both carry the same operations out: from where a sort is another one, the data may lead elsewhere. What
    the recipe rescales is another number on purpose.
    """
    rescaled = {(norm.old, norm.new) for norm in recipe.rescalings}
    pairs = zip(_given(shared_copy(model).double(), batch), _given(thinned, batch), strict=False)
    for (func, before), (other, after) in pairs:
        if func is not other or len(before) != len(after):
            return True
        if any(a != b and (a, b) not in rescaled for a, b in zip(before, after, strict=True)):
            return False
    return True


def _given(model: nn.Module, batch: Any) -> list[tuple[Any, list[Any]]]:
    numbers = _Numbers()
    with fixed_chance(), numbers:
        run(model.eval(), in_double(batch))
    return numbers.given
