"""Sizes: the integer attributes that torch's own modules keep beside their parameters, and resizing by shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from .attributes import changed, kept_as
from .errors import ThinningError
from .names import spelling, unwrapped
from .odd_widths import fit_layouts
from .running.copies import renew_caches

Sizes = dict[str, Any]


def _conv(module: Any) -> Sizes:
    first, second = module.weight.shape[:2]
    # A depthwise convolution loses groups with its channels; a grouped one keeps their number and loses width.
    depthwise = module.groups > 1 and module.groups == module.in_channels
    if module.transposed:
        groups = first if depthwise else module.groups
        return {"in_channels": first, "out_channels": second * groups, "groups": groups}
    if depthwise:
        inputs = first // (module.out_channels // module.in_channels)
        return {"in_channels": inputs, "out_channels": first, "groups": inputs}
    # The number stays, and is told: that of a depthwise convolution with one channel left is 1, and was not.
    return {"in_channels": second * module.groups, "out_channels": first, "groups": module.groups}


def _linear(module: Any) -> Sizes:
    return {"in_features": module.weight.shape[1], "out_features": module.weight.shape[0]}


def _bilinear(module: Any) -> Sizes:
    out, first, second = module.weight.shape
    return {"in1_features": first, "in2_features": second, "out_features": out}


def _norm(module: Any) -> Sizes:
    vector = module.weight if module.weight is not None else module.running_mean
    return {} if vector is None else {"num_features": vector.shape[0]}


def _layer_norm(module: Any) -> Sizes:
    if module.weight is None:
        return {}
    # The weight may have more dimensions: a vector for each head, say, of a norm of the user's own.
    return {"normalized_shape": tuple(module.weight.shape[-len(module.normalized_shape) :])}


def _group_norm(module: Any) -> Sizes:
    if module.weight is None:
        return {}
    channels = module.weight.shape[0]
    return {"num_channels": channels} | ({"num_groups": channels} if module.num_groups == module.num_channels else {})


def _embedding(module: Any) -> Sizes:
    return {"embedding_dim": module.weight.shape[1]}


def _prelu(module: Any) -> Sizes:
    return {"num_parameters": module.weight.shape[0]}


def _recurrent(module: Any) -> Sizes:
    sizes = {"input_size": module.weight_ih_l0.shape[1]}
    if getattr(module, "proj_size", 0):
        return sizes | {"proj_size": module.weight_hh_l0.shape[1], "hidden_size": module.weight_hr_l0.shape[1]}
    return sizes | {"hidden_size": module.weight_hh_l0.shape[1]}


def _cell(module: Any) -> Sizes:
    return {"input_size": module.weight_ih.shape[1], "hidden_size": module.weight_hh.shape[1]}


SIZES: list[tuple[Any, Callable[[Any], Sizes]]] = [
    (_ConvNd, _conv),
    (nn.Linear, _linear),
    (nn.Bilinear, _bilinear),
    (_NormBase, _norm),
    ((nn.LayerNorm, nn.RMSNorm) if hasattr(nn, "RMSNorm") else nn.LayerNorm, _layer_norm),
    (nn.GroupNorm, _group_norm),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    (nn.PReLU, _prelu),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, _cell),
]


def sizes_of(module: nn.Module) -> Sizes:
    """Return the sizes that a torch module of a known kind should have, given its parameters' shapes."""
    kind: Any = type(module)
    sizes = _way_of(kind)
    try:
        return {} if sizes is None else sizes(module)
    except (AttributeError, TypeError, ValueError, ZeroDivisionError):
        return {}


@lru_cache(maxsize=1000)  # asked of every module again and again
def _way_of(kind: type) -> Callable[[Any], Sizes] | None:
    return next((sizes for known, sizes in SIZES if issubclass(kind, known)), None)


def new_size(old: Any, new: Any, index: int | None = None) -> Any:
    """Return a size with element `index` of it (None: all of it) replaced; a tuple stays a tuple, a list a list."""
    if index is not None:
        new = [new if i == index else item for i, item in enumerate(old)]
    elif not (isinstance(old, (tuple, list)) and isinstance(new, (tuple, list))):
        return new
    return getattr(type(old), "_make", type(old))(new)  # `_make` of a named tuple


def set_size(module: nn.Module, name: str, new: Any, index: int | None = None) -> None:
    """Set a size that a module keeps (see `attributes`), or element `index` of it."""
    for own, value in changed(module, name, new_size(kept_as(module, name), new, index)).items():
        setattr(module, own, value)


def fit_sizes(model: nn.Module) -> list[tuple[str, str, Any, Any]]:
    """Set the sizes of all modules by their parameters' shapes; return each (module, attribute, old, new)."""
    changes = []
    for name, module in model.named_modules():
        for attribute, new in sizes_of(module).items():
            old = getattr(module, attribute, None)
            if old is not None and old != new:
                setattr(module, attribute, new)
                changes.append((name, attribute, old, new))
    return changes


def replace_data(tensor: Tensor, data: Tensor) -> None:
    """Give a parameter or buffer other data, even of another shape, while old graphs still point to it.

    Autograd keeps a gradient accumulator of the old shape alive as long as a loss is referenced; a change of type
    makes it forget that one, so that the next backward pass makes a new one.
    """
    if isinstance(tensor, nn.Parameter) and tensor.shape != data.shape:
        tensor.grad = None
        other = torch.float16 if tensor.dtype != torch.float16 else torch.float32
        tensor.data = torch.empty(0, dtype=other, device=tensor.device)
    tensor.data = data


def resize_to(model: nn.Module, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """Resize a dense model, in place, to the shapes found in the state dict of a thinned one; return the model.

    Parameters and buffers get new (uninitialised) data of the right shape, torch's own modules the sizes that follow
    from it; `model.load_state_dict(state_dict)` works afterwards. Sizes that the model's own code keeps (a number of
    heads, say) are in the recipe, not in a state dict: `load` restores those too.

    Raises `ThinningError` if a name is missing or a number of dimensions differs.
    """
    inner = unwrapped(model)
    own = inner.state_dict(keep_vars=True)
    spell = spelling(own)
    state_dict = {spell(name): tensor for name, tensor in state_dict.items()}
    missing, extra = sorted(own.keys() - state_dict.keys()), sorted(state_dict.keys() - own.keys())
    if missing or extra:
        raise ThinningError(f"the state dict is of another model: missing {missing[:5]}, unexpected {extra[:5]}")
    pairs = {name: (tensor, state_dict[name]) for name, tensor in own.items()}
    pairs = {name: pair for name, pair in pairs.items() if all(isinstance(value, Tensor) for value in pair)}
    for name, (tensor, found) in pairs.items():
        if found.ndim != tensor.ndim or any(new > old for new, old in zip(found.shape, tensor.shape, strict=True)):
            raise ThinningError(f"'{name}' is {list(found.shape)} in the state dict, {list(tensor.shape)} in the model")
    renew_caches(inner)
    for tensor, found in pairs.values():
        if found.shape != tensor.shape:
            replace_data(tensor, torch.empty(found.shape, dtype=tensor.dtype, device=tensor.device))
    fit_sizes(inner)
    fit_layouts(inner)
    return model
