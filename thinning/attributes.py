"""Which attributes of modules are sizes: the only ones that a recipe changes, and only to less.

`width` is an attribute of the module, `config.width` an entry of what it keeps as `config`: a dict or a plain object;
`config.text.width` one of what that holds.
Recipes come from files: without this a stride of 0, a padding of 3000 or `training = 7` would be taken as sizes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from .running.copies import INTERNAL

Size = int | tuple[int, ...]

SIZES = frozenset({
    *("in_channels", "out_channels", "groups", "num_features", "num_channels", "num_groups", "num_parameters"),
    *("in_features", "out_features", "in1_features", "in2_features", "normalized_shape", "unflattened_size"),
    *("embedding_dim", "num_embeddings", "embed_dim", "kdim", "vdim", "num_heads", "head_dim", "d_model"),
    *("input_size", "hidden_size", "proj_size"),
})  # fmt: skip
"""Attributes of torch's own modules that count channels."""
MOST_ENTRIES = 1000
"""What has more is a vocabulary or a data set, no configuration."""
SETTINGS = frozenset({
    *("training", "stride", "padding", "dilation", "kernel_size", "output_padding", "transposed", "padding_idx"),
    *("num_layers", "bidirectional", "ceil_mode", "eps", "momentum", "inplace", "start_dim", "end_dim"),
    *("upscale_factor", "downscale_factor"),
})  # fmt: skip
"""Attributes that are no sizes of channels in any module."""


def is_size(module: nn.Module, name: str) -> bool:
    """Return whether an attribute of a module may count channels."""
    own, *entries = name.split(".")
    if name in SIZES:
        return True
    if (
        {own, *entries} & SETTINGS
        or own in INTERNAL
        or own.startswith("__")
        or type(module).__module__.startswith("torch.")
    ):
        return False
    return not any(own in getattr(cls, "__constants__", ()) for cls in type(module).__mro__)


def kept_as(module: nn.Module, name: str) -> Any:
    """Return what a module keeps under a name; None if it keeps nothing so."""
    own, *entries = name.split(".")
    return reduce(lambda held, entry: entries_of(held).get(entry), entries, getattr(module, own, None))


def entries_of(holder: Any) -> Mapping[str, Any]:
    """Return the public entries of a dict or a plain object of the model's own, such as a configuration."""
    if isinstance(holder, dict):
        entries = holder
    elif isinstance(holder, (nn.Module, Tensor, type)) or type(holder).__module__.partition(".")[0] == "torch":
        return {}
    else:
        entries = getattr(holder, "__dict__", {})
    if len(entries) > MOST_ENTRIES:
        return {}
    return {name: value for name, value in entries.items() if isinstance(name, str) and name.isidentifier()}


def entries_within(name: str, holder: Any, levels: int = 3) -> Iterator[tuple[str, Any]]:
    """Yield what a dict or plain object that is kept as `name` holds, and what that holds, by dotted names."""
    for entry, value in entries_of(holder).items() if levels else ():
        yield f"{name}.{entry}", value
        yield from entries_within(f"{name}.{entry}", value, levels - 1)


def changed(module: nn.Module, name: str, value: Any) -> dict[str, Any]:
    """Return the attributes to set, and to what, for a module to keep `value` under a name.

    Of a configuration that is a copy: other modules hold the same one, and have channels of their own.
    """
    own, *entries = name.split(".")
    held = _with_entry(getattr(module, own), entries, value)
    return {own: held} | {twin: tuple(held.items()) for twin in twins(module, own)}


def twins(module: nn.Module, name: str) -> list[str]:
    """Return the attributes that hold a dict once more, as pairs: layers of einops read the lengths of axes there."""
    held = vars(module).get(name)
    pairs = tuple(held.items()) if isinstance(held, dict) and held else None
    return [twin for twin, value in vars(module).items() if type(value) is tuple and value == pairs]


def _with_entry(holder: Any, entries: Sequence[str], value: Any) -> Any:
    if not entries:
        return value
    entry, *further = entries
    value = _with_entry(entries_of(holder)[entry], further, value)
    holder = copy.copy(holder)
    if isinstance(holder, dict):
        holder[entry] = value
    if entry in getattr(holder, "__dict__", {}):
        object.__setattr__(holder, entry, value)  # also where its class forbids or checks it
    return holder


def size_problem(module: nn.Module, name: str, new: Size, index: int | None = None) -> str:
    """Return why an attribute cannot become (with an index, have at it) another size; nothing where it can."""
    found = kept_as(module, name) if name.partition(".")[0] in vars(module) else None
    sizes = found if isinstance(found, (tuple, list)) else [found]
    if not all(type(size) is int for size in sizes):
        return "is no integer or tuple of them"
    # A kernel over all channels of an image loses columns; torch's code reads the weight's shape, not this.
    columns = isinstance(module, _ConvNd) and name == "kernel_size" and (index is not None or not isinstance(new, int))
    if not is_size(module, name) and not columns:
        return "is no number of channels"
    if index is not None:
        if not isinstance(found, (tuple, list)) or index >= len(found) or not isinstance(new, int):
            return f"has no number {index}"
        return _less([found[index]], [new])
    if isinstance(found, int) != isinstance(new, int):
        return f"is {found}, which is another kind of value"
    return _less(sizes, [new] if isinstance(new, int) else new)


def epsilon_problem(module: nn.Module, name: str, new: float) -> str:
    """Return why an attribute cannot become another number that a norm adds to a mean; nothing where it can."""
    found = vars(module).get(name, "")
    if "eps" not in name or not (found is None or isinstance(found, float)):
        return "is no number that a norm adds"
    return "" if 0 <= new < math.inf else f"cannot become {new}"


def _less(old: Sequence[Any], new: Sequence[int]) -> str:
    if len(old) != len(new):
        return f"has {len(old)} numbers, not {len(new)}"
    wrong = [(a, b) for a, b in zip(old, new, strict=True) if b != a and not 0 < b < a]
    return f"is {wrong[0][0]} and cannot become {wrong[0][1]}" if wrong else ""
