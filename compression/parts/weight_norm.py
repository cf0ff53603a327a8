"""Weight norms: a weight is length x direction / |direction|, and a direction that is zero makes 0 / 0.

`torch.nn.utils.parametrizations.weight_norm` calls the two `original0` and `original1`, the older `weight_norm`
`weight_g` and `weight_v`. Where a length is zero the filter is, so lengths are what to prune.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.weight_norm import WeightNorm

from .structures import Group, oriented


def lengths_of(name: str, model: nn.Module) -> str | None:
    """Return the lengths of what a parameter holds the directions of, or None where it is no such parameter."""
    path, dot, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    if isinstance(owner, ParametrizationList):
        normed = leaf == "original1" and any(isinstance(part, _WeightNorm) for part in owner)
        return f"{path}{dot}original0" if normed else None
    hooks = [hook for hook in owner._forward_pre_hooks.values() if isinstance(hook, WeightNorm)]
    return next((f"{path}{dot}{hook.name}_g" for hook in hooks if leaf == f"{hook.name}_v"), None)


def direction_problem(group: Group, name: str, shapes: Mapping[str, torch.Size]) -> str | None:
    """Return why structures of a weight must not become zero.

    One of them is a direction, or has one in it; None: they may.
    """
    model: nn.Module | None = getattr(shapes, "model", None)
    lengths = None if model is None else lengths_of(name, model)
    if model is None or lengths is None:
        return None
    parts = _structures(oriented(group, name, model), shapes[name])
    normed = [True] * len(parts) if not shapes[lengths] else [size == 1 for size in shapes[lengths]]
    if any(count > 1 for count, inside in zip(parts, normed, strict=True) if inside):
        return None
    return f"{name} has the directions of a weight norm, and a direction of zeros is 0 / 0: name the lengths, {lengths}"


def _structures(group: Group, shape: torch.Size) -> list[int]:
    """Return how many structures a weight has along each dimension."""
    if group.block:
        block = (*group.block, *[1] * (len(shape) - len(group.block)))
        return [size // step for size, step in zip(shape, block, strict=True)]
    return [size if dim in group.kept else 1 for dim, size in enumerate(shape)]
