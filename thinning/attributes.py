"""Which attributes of modules are sizes: the only ones that a recipe changes, and only to less.

Recipes come from files: without this a stride of 0, a padding of 3000 or `training = 7` would be taken as sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

Size = int | tuple[int, ...]

SIZES = frozenset({
    *("in_channels", "out_channels", "groups", "num_features", "num_channels", "num_groups", "num_parameters"),
    *("in_features", "out_features", "in1_features", "in2_features", "normalized_shape", "unflattened_size"),
    *("embedding_dim", "num_embeddings", "embed_dim", "kdim", "vdim", "num_heads", "head_dim", "d_model"),
    *("input_size", "hidden_size", "proj_size"),
})  # fmt: skip
"""Attributes of torch's own modules that count channels."""
SETTINGS = frozenset({
    *("training", "stride", "padding", "dilation", "kernel_size", "output_padding", "transposed", "padding_idx"),
    *("num_layers", "bidirectional", "ceil_mode", "eps", "momentum", "inplace", "start_dim", "end_dim"),
    *("upscale_factor", "downscale_factor"),
})  # fmt: skip
"""Attributes that are no sizes of channels in any module."""


def is_size(module: nn.Module, name: str) -> bool:
    """Return whether an attribute of a module may count channels."""
    if name in SIZES:
        return True
    if name in SETTINGS or name.startswith("_") or type(module).__module__.startswith("torch."):
        return False
    return not any(name in getattr(cls, "__constants__", ()) for cls in type(module).__mro__)


def size_problem(module: nn.Module, name: str, new: Size, index: int | None = None) -> str:
    """Return why an attribute cannot become (with an index, have at it) another size; nothing where it can."""
    found = vars(module).get(name)
    sizes = found if isinstance(found, (tuple, list)) else [found]
    if not all(type(size) is int for size in sizes):
        return "is no integer or tuple of them"
    if not is_size(module, name):
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
