"""Operations whose shapes are known without torch's own, slower way of finding them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def carry_out(func: Any, args: Any, kwargs: Any) -> Any:
    """Carry an operation out; on the meta device those of convolutional networks without torch's Python versions."""
    if func is aten.native_batch_norm.default and args[0].is_meta:
        return _batch_norm(*args, **kwargs)
    if func is aten.convolution.default and args[0].is_meta:
        shape = _convolved(*args, **kwargs)
        if shape is not None:
            return args[0].new_empty(shape)
    return func(*args, **kwargs)


def _batch_norm(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    channels = x.shape[1]
    for vector in rest[:4]:
        if vector is not None and vector.numel() != channels:
            raise RuntimeError(f"a vector of {vector.numel()} elements for {channels} channels")
    saved = channels if rest[4] else 0
    return torch.empty_like(x), x.new_empty(saved), x.new_empty(saved)


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> list[int] | None:
    """The shape of a plain convolution's output; None where it is not plain, or torch has something against it."""
    stride, padding, dilation, transposed, _, groups = rest
    image = x.shape[2:]
    plain = not transposed and x.ndim == weight.ndim and x.is_contiguous() and len(stride) == len(padding) == len(image)
    fits = x.shape[1] == weight.shape[1] * groups and weight.shape[0] % groups == 0
    if not plain or not fits or (bias is not None and bias.numel() != weight.shape[0]):
        return None
    each = zip(image, weight.shape[2:], stride, padding, dilation, strict=True)
    sizes = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in each]
    return [x.shape[0], weight.shape[0], *sizes] if min(sizes) > 0 else None
