"""Rows of one tensor added into the rows of another, as an index says: sums over the edges of a graph, say."""

from __future__ import annotations

import torch
from torch import Tensor

from ..call import Call
from ..labels import Plane, Storage, TensorInfo
from ..registry import rule
from .elementwise import combine, merge

aten = torch.ops.aten


@rule(aten.scatter_add, aten.scatter_add_, aten.scatter_reduce, aten.scatter_reduce_, aten.index_add, aten.index_add_)
def scatter(call: Call) -> None:
    """Along the other dimensions each channel stays where it is; zeros into zeros are zeros, whatever the sum."""
    target, dim, index, source = call.args[:4]
    dim %= max(target.ndim, 1)
    others = [d for d in range(target.ndim) if d != dim]
    whole = index.ndim < 2 or index.shape == source.shape
    if not whole or any(source.shape[d] != target.shape[d] for d in others):
        call.give_up("takes a part of what it reads")
        return
    into = call.info(target)
    zero = into.storage.value == 0 and not into.planes
    infos = [_across(call, info, dim) for info in (into, call.info(source))]
    rows = [1 if d == dim else size for d, size in enumerate(target.shape)]
    groups = combine(call, infos, [target.shape, rows], target.shape)
    if call.func._schema.is_mutable:
        into.storage.uniform, into.storage.value = False, None
    call.emit(merge(group, _zeros(call, group, zero)) for group in groups)


def _across(call: Call, info: TensorInfo, dim: int) -> TensorInfo:
    """Return the planes that do not vary along the rows; the others are frozen."""
    call.freeze([plane for plane in info.current if dim in plane.dims], "rows are chosen by an index")
    kept = tuple(plane for plane in info.current if dim not in plane.dims)
    return TensorInfo(kept, Storage(uniform=info.storage.uniform and not info.planes))


def _zeros(call: Call, group: list[Plane], zero: bool) -> Tensor | None:
    """Return where all that is added is 0, and what it is added to."""
    values = [call.value_of(plane) for plane in group]
    if not (zero or len(group) > 1) or any(value is None for value in values):
        return None
    known = [value for value in values if value is not None]
    none = torch.stack(torch.broadcast_tensors(*(value == 0 for value in known))).all(0)
    return torch.where(none, 0.0, torch.nan).double()
