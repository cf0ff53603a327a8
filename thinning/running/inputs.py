"""Example inputs and outputs of any shape: tensors in tuples, dicts, dataclasses."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from .default_device import users_default


def arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments of a tensor, a tuple or list of arguments, or a dict of keywords."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def run(model: nn.Module, example_inputs: Any) -> Any:
    """Call the model with such inputs."""
    args, kwargs = arguments(example_inputs)
    with users_default():
        return model(*args, **kwargs)


def tensors_of(value: Any, numbers: bool = False, seen: set[int] | None = None) -> list[Tensor]:
    """Return all tensors in a result: in lists, tuples, mappings, dataclasses and objects with attributes, in order.

    With `numbers` also what has left torch: Python's and numpy's numbers that are not whole, and numpy's arrays.
    Caches of keys and values are no results: only the model reads them.
    """
    seen = set() if seen is None else seen
    if isinstance(value, Tensor):
        return [value]
    if numbers and _is_number(value):
        return [torch.as_tensor(value)]
    if value is None or isinstance(value, (str, bytes, int, float, bool, type, nn.Module)) or id(value) in seen:
        return []
    if is_cache(value):
        return []
    seen.add(id(value))
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        parts = list(value)
    elif dataclasses.is_dataclass(value):
        parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
    else:
        parts = list(getattr(value, "__dict__", {}).values())
        slots = (name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()))
        parts += [getattr(value, name, None) for name in slots]
    return [tensor for part in parts for tensor in tensors_of(part, numbers, seen)]


def is_cache(value: Any) -> bool:
    """Return whether an object is a cache of transformers (which need not be imported)."""
    return any(kind.__name__ == "Cache" and kind.__module__.startswith("transformers.") for kind in type(value).__mro__)


def next_step(model: nn.Module, example_inputs: Any, result: Any) -> dict[str, Any] | None:
    """Return arguments by which a language model goes on from its cache with one more token; None without one."""
    # transformers renamed both the output and the argument, and not in every model at once.
    cache = getattr(result, "cache" if hasattr(result, "cache") else "past_key_values", None)
    argument = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
    args, kwargs = arguments(example_inputs)
    kwargs = {**({"input_ids": args[0]} if args else {}), **kwargs}
    name = "decoder_input_ids" if "decoder_input_ids" in kwargs else "input_ids"
    tokens = kwargs.get(name)
    if not is_cache(cache) or not isinstance(tokens, Tensor) or tokens.ndim != 2:
        return None
    onward = {**kwargs, name: tokens[:, -1:], argument: cache}
    mask = kwargs.get("attention_mask")
    if name == "input_ids" and isinstance(mask, Tensor) and mask.ndim == 2:
        onward["attention_mask"] = torch.cat([mask, mask[:, -1:]], 1)
    return {key: value for key, value in onward.items() if key not in ("position_ids", "labels")}


def _is_number(value: Any) -> bool:
    """Return whether a value is a number that is not whole, or an array of numpy (which need not be imported)."""
    if type(value).__module__ != "numpy" or not hasattr(value, "dtype"):
        return isinstance(value, (float, complex))
    return value.dtype.kind in ("biufc" if value.ndim else "fc")


def batch_of(example_inputs: Any) -> int:
    """Return the size of the first dimension of the first tensor, 1 without one."""
    first = next((tensor for tensor in tensors_of(example_inputs) if tensor.ndim), None)
    return int(first.shape[0]) if first is not None and first.shape[0] else 1


def beside(model: nn.Module, example_inputs: Any) -> Any:
    """Return the inputs where the model is: those on the CPU follow one that lies on another device as a whole."""
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) != 1 or "cpu" in {device.type for device in devices}:
        return example_inputs
    (device,) = devices
    return tree_map_only(Tensor, lambda tensor: tensor.to(device) if tensor.is_cpu else tensor, example_inputs)


def to(example_inputs: Any, device: str | torch.device) -> Any:
    """Return the inputs on another device."""
    return tree_map_only(Tensor, lambda tensor: tensor.detach().to(device), example_inputs)
