"""What element-wise operations make of channels whose values are known: NaN is the unknown."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ..call import Call
from ..constants import real_values
from ..labels import Plane, TensorInfo
from ..registry import operations
from .fallback import DRAWN

aten = torch.ops.aten
PRODUCTS = (aten.mul, aten.mul_)
QUOTIENTS = (aten.div, aten.div_)
KEEP_ZERO = (
    *QUOTIENTS,
    aten.polar,
    aten._prelu_kernel,
    aten.rrelu_with_noise,
)  # 0 stays 0, whatever the other operands are
CHOICES = (aten.where, aten.masked_fill, aten.masked_fill_)
BLENDS = (aten.lerp, aten.lerp_)
ADDED_PRODUCTS = (aten.addcmul, aten.addcmul_, aten.addcdiv, aten.addcdiv_)
RANDOM = (aten.rand_like, aten.randn_like, aten.bernoulli, aten.empty_like, *operations(DRAWN))
CONSTANTS = (aten.zeros_like, aten.ones_like, aten.full_like)


def value_of(call: Call, group: Sequence[Plane]) -> Tensor | None:
    """Carry the operation out on the known values; anything that meets the unknown is unknown (except 0 x unknown)."""
    values = [call.value_of(plane) for plane in group]
    if all(value is None for value in values):
        return None
    shape = group[0].ids.shape
    unknown = torch.tensor(torch.nan, dtype=torch.float64)
    operands = [member.operand for member in group]
    mine: dict[int, Tensor] = {}
    for number, tensor in enumerate(call.tensors):
        # By object, since the same tensor may stand in the arguments twice (x * x).
        own = [value for value, operand in zip(values, operands, strict=True) if operand == number]
        known = _either_known(own) if own else _constant(call.infos[number])
        mine[id(tensor)] = unknown if known is None else known
    result = _carry_out(call, mine)
    if result is None:
        return None
    result = torch.broadcast_to(result, shape) if result.ndim <= len(shape) else result.reshape(shape)
    return result.contiguous() if not bool(result.isnan().all()) else None


def _either_known(values: Sequence[Tensor | None]) -> Tensor | None:
    """Return what an operand is known to equal along one of its axes: a table whose column is 0 is 0 in all rows."""
    known = [value for value in values if value is not None]
    return reduce(lambda a, b: torch.where(a.isnan(), b, a), known) if known else None


def _constant(info: TensorInfo) -> Tensor | None:
    known = info.storage.value
    return None if known is None or info.planes else torch.tensor(known, dtype=torch.float64)


def _carry_out(call: Call, mine: dict[int, Tensor]) -> Tensor | None:
    """Return the operation on known values, NaN being the unknown: what meets it is unknown, except in 0 x unknown."""
    packet = getattr(call.func, "overloadpacket", None)
    # Random numbers are no constants, though all elements may be alike in distribution.
    if packet in RANDOM:
        return None
    if packet in CHOICES:
        args = tree_map_only(Tensor, lambda t: mine[id(t)], call.args)
        return _choose(*(args if packet is aten.where else (args[1], args[2], args[0])))
    args, kwargs = tree_map_only(Tensor, lambda t: _like(mine[id(t)], t), (call.args, call.kwargs))
    if packet in BLENDS:
        return _blend(*args)
    if packet in ADDED_PRODUCTS:
        return _add_product(call.func, *args, **kwargs)
    # Known values lie on the CPU while the trace runs on the meta device.
    kwargs.pop("device", None)
    try:
        result = call.func(*args, **kwargs)
    except (RuntimeError, TypeError, NotImplementedError):
        if packet not in KEEP_ZERO:
            return None
        result = torch.full_like(mine[id(call.tensors[0])], torch.nan)
    result = real_values(result[0] if isinstance(result, (tuple, list)) else result)
    # NaN is the unknown: functions that swallow NaN (x > 0, maximum) would make a known value of it.
    if packet not in CONSTANTS:
        for tensor in mine.values():
            result = torch.where(tensor.isnan(), torch.nan, result)
    # Zero times the unknown is zero: what a dead channel is multiplied with (gates, attention) does not matter. That
    # holds for all finite numbers; outputs that are not finite are found by the comparison at the end.
    if packet in PRODUCTS + KEEP_ZERO and isinstance(call.args[0], Tensor):
        for tensor in [mine[id(t)] for t in call.tensors[: 2 if packet in PRODUCTS else 1]]:
            result = torch.where(tensor == 0, 0.0, result)
    return result


def _like(value: Tensor, tensor: Tensor) -> Tensor:
    return value.bool() if tensor.dtype == torch.bool else value.clone()


def _choose(condition: Tensor, first: Any, second: Any) -> Tensor:
    """Choose by `where`: between equals it does not depend on the condition."""
    first, second = (torch.as_tensor(value, dtype=torch.float64) for value in (first, second))
    either = torch.where(first == second, first, torch.nan)
    return torch.where(condition.isnan(), either, torch.where(condition != 0, first, second))


def _blend(first: Tensor, second: Tensor, share: Any) -> Tensor:
    """Return `first + share * (second - first)`: between equals it does not depend on the share."""
    return torch.where(first == second, first, torch.lerp(first, second, share))


def _add_product(operation: Any, start: Tensor, first: Tensor, second: Tensor, **scale: Any) -> Tensor:
    """Add a product or quotient; one with zero is zero, whatever the other is."""
    silent = (first == 0) | ((second == 0) & (operation.overloadpacket in ADDED_PRODUCTS[:2]))
    return torch.where(silent, start, operation(start.clone(), first, second, **scale))
