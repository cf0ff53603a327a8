"""Rows of one tensor added into the rows of another, as an index says: sums over the edges of a graph, say."""

from __future__ import annotations

import torch
from torch import Tensor

from ..call import Call
from ..labels import Plane, Storage, TensorInfo
from ..registry import rule
from .elementwise import combine, merge, own_shape

aten = torch.ops.aten


@rule(
    *(aten.scatter_add, aten.scatter_add_, aten.scatter_reduce, aten.scatter_reduce_),
    *(aten.index_add, aten.index_add_, aten.index_reduce, aten.index_reduce_),
)
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


@rule(aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index_put)
def index_put(call: Call) -> None:
    """Follow rows written by an index: along the other dimensions each channel stays where it is."""
    target, indices, values = call.args[:3]
    used = [index for index in indices if index is not None]
    rows = sum(index.ndim if index.dtype == torch.bool else 1 for index in used)
    if len(used) != len(indices) or values.ndim > target.ndim + max(index.ndim for index in used):
        call.give_up("rows are chosen by an index")
        return
    _write_rows(call, target, values, rows)


@rule(aten.scatter, aten.scatter_, aten.index_copy, aten.index_copy_, aten.index_fill, aten.index_fill_)
def write(call: Call) -> None:
    """Follow what is written along one dimension where an index says: each channel along the others stays in place."""
    target, dim, index, source = call.args[:4]
    dim %= max(target.ndim, 1)
    tensors = [tensor for tensor in (index, source) if isinstance(tensor, Tensor) and tensor.ndim == target.ndim > 1]
    others = [d for d in range(target.ndim) if d != dim]
    if any(tensor.shape[d] != target.shape[d] for tensor in tensors for d in others):
        call.give_up("takes a part of what it reads")
        return
    call.freeze(call.planes(index), "rows are chosen by an index")
    info, filled = call.info(target), not isinstance(source, Tensor)
    written = TensorInfo(storage=Storage(value=source)) if filled else _across(call, call.info(source), dim)
    rows = [1 if d == dim else size for d, size in enumerate(target.shape)]
    shapes = [target.shape, [1] * target.ndim if filled or source.ndim == 0 else rows]
    infos = [_across(call, info, dim), written]
    fill = info.storage.value if info.uniform else None
    groups = combine(call, infos, shapes, target.shape)
    added = "reduce" in call.kwargs or len(call.args) > 4
    planes = [merge(group, None if added else _either(call, group, fill, written)) for group in groups]
    if call.func._schema.is_mutable:
        info.storage.uniform, info.storage.value = False, None
    call.emit(planes)


@rule(aten.masked_scatter, aten.masked_scatter_)
def masked_scatter(call: Call) -> None:
    """Follow rows written where a mask says (features of an image among those of words)."""
    target, mask, source = call.args
    chosen = [1] * (target.ndim - mask.ndim) + own_shape(mask)
    rows = max((dim + 1 for dim, size in enumerate(chosen) if size > 1), default=0)
    if source.shape[-1:] != target.shape[-1:] or rows != target.ndim - 1:
        call.give_up("elements are chosen by a mask")
        return
    _write_rows(call, target, source, rows)


def _write_rows(call: Call, target: Tensor, values: Tensor, rows: int) -> None:
    """Follow what is written into rows, which the first dimensions tell apart, of a tensor."""
    call.freeze([plane for plane in call.planes(target) if min(plane.dims) < rows], "rows are chosen by an index")
    info, width = call.info(target), target.ndim - rows
    written = list(call.planes(values))
    call.freeze([p for p in written if min(p.dims) < values.ndim - width], "rows are chosen by an index")
    kept = tuple(
        p.map(lambda t: t.reshape((1,) * (target.ndim - min(width, t.ndim)) + tuple(t.shape[-width:])))
        for p in written
        if min(p.dims) >= values.ndim - width
    )
    mine = TensorInfo(tuple(plane for plane in info.current if min(plane.dims) >= rows), info.storage, info.version)
    source = call.info(values)
    theirs = TensorInfo(kept, source.storage, source.storage.version, cause=source.cause)
    tail = own_shape(values)[-width:] if width else []
    shapes = [[1] * rows + list(target.shape[rows:]), [1] * (target.ndim - len(tail)) + tail]
    fresh, fill = info.uniform, info.storage.value
    groups = combine(call, [mine, theirs], shapes, target.shape)
    planes = [merge(group, _either(call, group, fill if fresh else None, theirs)) for group in groups]
    if call.func._schema.is_mutable:
        info.storage.uniform, info.storage.value = False, None
    call.emit(planes)


def _either(call: Call, group: list[Plane], fill: float | None, written: TensorInfo) -> Tensor | None:
    """Return what channels are known to equal both where they are written and where they are not."""
    value = call.value_of(group[-1])
    before = call.value_of(group[0]) if len(group) > 1 else None
    if len(group) == 1 and value is not None:
        other = written.storage.value if not written.planes else fill
        before = None if other is None else torch.full_like(value, other)
    return None if value is None or before is None else torch.where(before == value, value, torch.nan)
