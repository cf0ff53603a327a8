"""What each module of a network returns: where two networks differ first, and whether only rounding was amplified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .difference import difference, relative_difference
from .recipe import Recipe
from .running.copies import shared_copy
from .running.inputs import run, tensors_of
from .running.outputs import fixed_chance, in_double, outputs
from .running.precision import full_precision, in_double_throughout

SOME = 64
"""So many roundings are what the order of a sum changes."""
ROUNDING = 2.0**-50
"""Some roundings of double precision: what the order of a sum changes."""


def module_outputs(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    """Return the first tensor that each module returns, in the order of the calls."""
    results: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _args: Any, out: Any) -> None:
        tensors = tensors_of(out)
        if tensors:
            results.setdefault(name, tensors[0].detach().clone())

    copy = shared_copy(model).eval()
    for name, module in copy.named_modules():
        module.register_forward_hook(partial(keep, name))
    with torch.no_grad(), full_precision(), fixed_chance():
        run(copy, batch)
    return results


def first_difference(recipe: Recipe, before: dict[str, Tensor], after: dict[str, Tensor], tolerance: float) -> str:
    """Return the first module output that differs, among those whose channels are known on both sides."""
    for name, tensor in before.items():
        other = after.get(name)
        tensor = _kept(recipe, name, tensor)
        if other is not None and other.shape == tensor.shape and not difference(tensor, other) <= tolerance:
            return f"the output of '{name or 'the model'}'"
    return "an output of the model"


def _kept(recipe: Recipe, name: str, tensor: Tensor) -> Tensor:
    """Return what is left of a layer's output."""
    change = next((change for change in recipe.tensors if change.name == f"{name}.weight"), None)
    kept = None if change is None else change.keep.get(0)
    if change is None or kept is None or not tensor.ndim:
        return tensor
    dim = 1 if tensor.ndim == len(change.shape) and tensor.ndim > 2 else tensor.ndim - 1
    return tensor.index_select(dim, kept.to(tensor.device)) if tensor.shape[dim] == change.shape[0] else tensor


def layers_gap(model: nn.Module, thinned: nn.Module, recipe: Recipe, batch: Any) -> float:
    """Return the largest difference, in double precision, of an output of a layer whose channels are known."""
    doubled, models = in_double(batch), (shared_copy(model).double(), thinned)
    before, after = in_double_throughout(lambda: [module_outputs(one, doubled) for one in models])
    leaves = {name for name, module in model.named_modules() if not [*module.children()]}
    gaps = []
    for name, tensor in before.items():
        kept = _kept(recipe, name, tensor)
        if name in leaves and name in after and after[name].shape == kept.shape:
            gaps.append(difference(kept, after[name]))
    return max(gaps, default=float("inf"))


def amplifies(model: nn.Module, batches: Sequence[Any], wanted: Sequence[Sequence[Tensor]], tolerance: float) -> bool:
    """Return whether parameters that differ by a rounding of double precision make outputs that differ by more."""
    if not relative_difference(wanted, outputs(shared_copy(model), batches, double=True, onward=True)) <= tolerance:
        return False  # its outputs are others each time
    return any(not gap <= tolerance for gap in rounding_gaps(model, batches, wanted, double=True))


def rounding_gaps(
    model: nn.Module, batches: Sequence[Any], wanted: Sequence[Sequence[Tensor]], double: bool
) -> Iterator[float]:
    """Yield by how much the outputs differ where parameters do by some roundings, three times."""
    for seed in range(3):
        draw, copy = torch.Generator().manual_seed(seed), shared_copy(model)
        copy = copy.double() if double else copy
        for parameter in (p for p in copy.parameters() if p.is_floating_point()):
            noise = torch.randn(parameter.shape, generator=draw, device="cpu", dtype=torch.float64).to(parameter.device)
            size = ROUNDING if double else SOME * torch.finfo(parameter.dtype).eps
            parameter.data = (parameter.data.double() * (1 + size * noise)).to(parameter.dtype)
        yield relative_difference(wanted, outputs(copy, batches, double=double, onward=True))
