"""Operations whose shapes are known without torch's own, slower way of finding them."""

from __future__ import annotations

from typing import Any

import torch


def carry_out(func: Any, args: Any, kwargs: Any) -> Any:
    """Carry an operation out; BatchNorm's shapes on the meta device are known without torch's slow Python version."""
    if func is not torch.ops.aten.native_batch_norm.default or args[0].device.type != "meta":
        return func(*args, **kwargs)
    x, channels = args[0], args[0].shape[1]
    for vector in args[1:5]:
        if vector is not None and vector.numel() != channels:
            raise RuntimeError(f"a vector of {vector.numel()} elements for {channels} channels")
    saved = channels if args[5] else 0
    return torch.empty_like(x), x.new_empty(saved), x.new_empty(saved)
