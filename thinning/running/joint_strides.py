"""How the result of an element-wise operation lies in memory, of tensors of several shapes or layouts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def joint_strides(shape: Sequence[int], tensors: Sequence[Tensor]) -> list[int]:
    """Return the strides of a result without gaps, its dimensions in the order in which the tensors have them."""
    rows = [_broadcast_strides(tensor, shape) for tensor in tensors]
    # The dimension that lies closest together comes first; the first tensor in which two differ decides about them.
    order = list(range(len(shape) - 1, -1, -1))
    for number in range(1, len(order)):
        mover = number
        for place in range(number - 1, -1, -1):
            wrong = _compare(rows, shape, order[place], order[mover])
            if wrong > 0:
                order[place], order[mover] = order[mover], order[place]
                mover = place
            elif wrong < 0:
                break
    strides, span = [0] * len(shape), 1
    for dim in order:
        strides[dim] = span
        span *= shape[dim]
    return strides


def _broadcast_strides(tensor: Tensor, shape: Sequence[int]) -> list[int]:
    more, own = len(shape) - tensor.ndim, tensor.shape
    strides = zip(tensor.stride(), own, shape[more:], strict=True)
    return [0] * more + [0 if size == 1 != new else stride for stride, size, new in strides]


def _compare(rows: Sequence[Sequence[int]], shape: Sequence[int], dim: int, other: int) -> int:
    """Return 1 if the second dimension lies closer together, -1 if the first does, 0 if nothing tells."""
    for strides in rows:
        if strides[dim] and strides[other]:
            if strides[dim] != strides[other]:
                return 1 if strides[dim] > strides[other] else -1
            if shape[dim] > shape[other]:
                return 1
    return 0
