"""Copies of a model that share or need no memory."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .sharded import unsharded_classes, whole_shape


def copied(model: nn.Module, change: Callable[[Tensor], Tensor], share: bool = False) -> nn.Module:
    """Return a copy whose parameters and buffers are `change(tensor)`, or the same with `share` (parameters).

    Ties stay ties.
    """
    memo: dict[int, Any] = {}
    modules = list(model.modules())  # once: torch goes through all of them anew for each kind of tensors
    for parameter in (tensor for module in modules for tensor in module._parameters.values() if tensor is not None):
        if id(parameter) not in memo:
            made = parameter.detach() if share else change(whole_shape(parameter.detach()))
            memo[id(parameter)] = nn.Parameter(made, requires_grad=False)
    buffers = [tensor for module in modules for tensor in module._buffers.values() if tensor is not None]
    for tensor in [*buffers, *_computed(modules)]:
        if id(tensor) not in memo:
            memo[id(tensor)] = change(tensor.detach())
    with unsharded_classes(model) as hooks:
        memo |= hooks
        try:
            # With the tensors in its memo a deep copy has the structure, ties and shared modules included, no weights.
            return _deepcopy(model, dict(memo), {})
        except TypeError:  # a lock, an open file, a random generator: the copy has the same one
            return _deepcopy(model, memo | _uncopyable(model), {})


def _deepcopy(value: Any, memo: dict[int, Any], plain: dict[type, bool]) -> Any:
    """Return `copy.deepcopy(value, memo)`, sooner for modules: these hold mostly numbers and empty dicts of hooks.

    `plain`: what is known already of classes of modules.
    """
    kind = type(value)
    if kind in UNCHANGING:
        return value
    number = id(value)
    if number in memo:
        return memo[number]
    if kind in CONTAINERS and not value and not getattr(value, "__dict__", None):
        memo[number] = twin = kind()
    elif kind is tuple and UNCHANGING.issuperset(map(type, value)):
        return value
    elif kind is dict:
        memo[number] = twin = {}
        for key, item in value.items():
            twin[_deepcopy(key, memo, plain)] = _deepcopy(item, memo, plain)
    elif isinstance(value, nn.Module) and _copied_plainly(kind, plain):
        make, arguments, state, *_ = cast(tuple[Any, ...], value.__reduce_ex__(4))
        memo[number] = twin = make(*arguments)
        # Most of what hundreds of modules hold needs no call: numbers, and their own dicts of hooks, which are empty.
        items = {
            key: item if type(item) in UNCHANGING
            else type(item)() if key in INTERNAL and type(item) in CONTAINERS and not item
            else _deepcopy(item, memo, plain)
            for key, item in state.items()
        }  # fmt: skip
        twin.__setstate__(items)
    else:
        twin = copy.deepcopy(value, memo)
    return twin


UNCHANGING = {type(None), bool, int, float, str}
CONTAINERS = {dict, OrderedDict, set}
OWN = ["__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__slots__"]


def _copied_plainly(kind: type, plain: dict[type, bool]) -> bool:
    """Return whether a class of modules says nothing of its own on how it is copied, but what is done at the end."""
    if kind not in plain:
        plain[kind] = all(getattr(kind, name, None) is getattr(nn.Module, name, None) for name in OWN)
    return plain[kind]


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


def _computed(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Return tensors with a graph that modules keep: weights that hooks compute, activations of the last run."""
    kept = tree_leaves([value for _, _, value in _holders(modules)])
    return [value for value in kept if isinstance(value, Tensor) and not value.is_leaf]


def _holders(modules: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, str, Any]]:
    """Yield attributes that may hold tensors, beside parameters and buffers: module, name, value."""
    for module in modules:
        for name, value in vars(module).items():
            if name not in INTERNAL and isinstance(value, (Tensor, list, tuple, dict)):
                # The sizes of a kernel, and many more lists of numbers, need not be taken apart.
                items = value.values() if isinstance(value, dict) else value
                if isinstance(value, Tensor) or not UNCHANGING.issuperset(map(type, items)):
                    yield module, name, value


def meta_copy(model: nn.Module) -> nn.Module:
    """Return a copy without any memory: shapes only."""
    return copied(model, lambda tensor: torch.empty_like(tensor, device="meta"))


def shared_copy(model: nn.Module) -> nn.Module:
    """Return a copy with the same parameters in memory and buffers of its own.

    Where a module has a `train` of its own, which may write to weights (adapters merge theirs), the copy has its own.
    """
    return copied(model, torch.clone, share=not _has_own_train(model))


def own_copy(model: nn.Module) -> nn.Module:
    """Return a copy that shares nothing: code that trains may write to weights."""
    return copied(model, torch.clone)


def _has_own_train(model: nn.Module) -> bool:
    """Return whether something happens when modes change."""
    return any(getattr(module.train, "__func__", None) is not nn.Module.train for module in model.modules())


def training(copy: nn.Module, model: nn.Module) -> nn.Module:
    """Let a copy train as the model does: in that mode, with gradients for the same parameters."""
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, parameter in copy.named_parameters():
        parameter.requires_grad_(name in wanted)
    return copy.train()


def renew_caches(model: nn.Module) -> None:
    """Empty what modules keep for evaluation and make anew when they need it, of weights as they were.

    That is what training empties, and a change to evaluation does not fill.
    """
    kept = [(name, module, key) for name, module in model.named_modules() for _, key, _ in _holders([module])]
    if not kept or not _has_own_train(model):
        return
    # On a copy: what else a module does when its mode changes is no matter of ours.
    copy = meta_copy(model)
    try:
        copy.train()
        copy.eval()
    except Exception:  # whatever a model's code raises: it may be for inference only
        return
    for name, module, key in kept:
        value = getattr(copy.get_submodule(name), key, False)
        if value is None or (type(value) in (*CONTAINERS, list) and not value):
            setattr(module, key, value)


def kept_by(model: nn.Module) -> list[Tensor]:
    """Return tensors that modules keep as attributes, in lists and dicts too, but no parameters and buffers."""
    known = {id(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    found: list[Tensor] = []
    for module, name, value in _holders(model.modules()):
        computed = f"{name}_g" in module._parameters or f"{name}_orig" in module._parameters
        if not computed:
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
