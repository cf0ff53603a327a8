"""Copies of a model that share or need no memory."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .sharded import unsharded_classes, whole_shape


def copied(model: nn.Module, change: Callable[[Tensor], Tensor], share: bool = False) -> nn.Module:
    """Return a copy whose parameters and buffers are `change(tensor)`, or the same with `share` (parameters).

    Ties stay ties.
    """
    memo: dict[int, Any] = _empty(model)
    for parameter in model.parameters():
        made = parameter.detach() if share else change(whole_shape(parameter.detach()))
        memo.setdefault(id(parameter), nn.Parameter(made, requires_grad=False))
    for tensor in [*model.buffers(), *_computed(model)]:
        memo.setdefault(id(tensor), change(tensor.detach()))
    with unsharded_classes(model) as hooks:
        memo |= hooks
        try:
            # With the tensors in its memo deepcopy copies the structure, ties and shared modules included, no weights.
            return copy.deepcopy(model, dict(memo))
        except TypeError:  # a lock, an open file, a random generator: the copy has the same one
            return copy.deepcopy(model, memo | _uncopyable(model))


def _empty(model: nn.Module) -> dict[int, Any]:
    """Return copies of the modules' empty dicts by id: mostly of hooks, which take `deepcopy` the longest."""
    kept = [value for module in model.modules() for value in vars(module).values()]
    empty = [value for value in kept if type(value) in (dict, OrderedDict) and not value]
    return {id(value): type(value)() for value in empty if not getattr(value, "__dict__", None)}


def _uncopyable(model: nn.Module) -> dict[int, Any]:
    """Return what modules keep as attributes that Python cannot copy, by id."""
    found = {}
    for module in model.modules():
        for key, value in vars(module).items():
            if key not in ("_parameters", "_buffers", "_modules") and not isinstance(value, (nn.Module, Tensor)):
                try:
                    copy.deepcopy(value)
                except TypeError:
                    found[id(value)] = value
    return found


def _computed(model: nn.Module) -> list[Tensor]:
    """Return tensors with a graph that modules keep: weights that hooks compute, activations of the last run."""
    every = [value for module in model.modules() for key, value in vars(module).items() if not key.startswith("_")]
    kept = tree_leaves([value for value in every if isinstance(value, (Tensor, list, tuple, dict))])
    return [value for value in kept if isinstance(value, Tensor) and not value.is_leaf]


def meta_copy(model: nn.Module) -> nn.Module:
    """Return a copy without any memory: shapes only."""
    return copied(model, lambda tensor: torch.empty_like(tensor, device="meta"))


def shared_copy(model: nn.Module) -> nn.Module:
    """Return a copy with the same parameters in memory and buffers of its own.

    Where a change of the mode may write to weights (adapters that merge themselves), the copy has its own.
    """
    return copied(model, torch.clone, share=not any(_writes(module) for module in model.modules()))


def _writes(module: nn.Module) -> bool:
    """Return whether a module's own `train` speaks of weights."""
    code = getattr(type(module).train, "__code__", None)
    if code is None or type(module).train is nn.Module.train:
        return False
    return bool({"data", "weight"} & set(code.co_names))


def kept_by(model: nn.Module) -> list[Tensor]:
    """Return tensors that modules keep as attributes, in lists and dicts too, but no parameters and buffers."""
    known = {id(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    found: list[Tensor] = []
    for module in model.modules():
        for key, value in vars(module).items():
            computed = f"{key}_g" in module._parameters or f"{key}_orig" in module._parameters
            if not computed and key not in INTERNAL and isinstance(value, (Tensor, list, tuple, dict)):
                found += [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and id(leaf) not in known]
    return found


INTERNAL = frozenset(vars(nn.Module()))
"""What every module has: its parameters, buffers, modules and hooks."""


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers by their first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def aliases_of(model: nn.Module) -> dict[str, str]:
    """Return the further names of tied parameters and buffers -> the name that they are known by."""
    first: dict[int, str] = {}
    aliases = {}
    every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in every:
        if first.setdefault(id(tensor), name) != name:
            aliases[name] = first[id(tensor)]
    return aliases
