"""Fresh tensors of zeros or ones that channels are written into or joined with: their sizes become channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..call import Call
from ..labels import Plane, TensorInfo, as_view, attach, info_of, squash

aten = torch.ops.aten
WRITTEN = "written into a tensor of fixed size"


def write_fresh(call: Call) -> None:
    """Follow a copy into a fresh tensor of one value, or a part of it: the whole gets the channels of what is written.

    Anything else that is done in place to one freezes what goes in: its size was chosen by the model.
    """
    target, storage = call.tensors[0], call.infos[0].storage
    fill, storage.uniform, storage.value = storage.value, False, None
    planes = [plane.lift(target.ndim) for tensor in call.tensors[1:] for plane in call.planes(tensor)]
    whole = _whole(target)
    whole = target if whole is None else whole
    if call.func.overloadpacket is not aten.copy_ or not all(_fits(p, target, whole) for p in planes):
        for tensor in call.tensors[1:]:
            call.freeze(call.planes(tensor), WRITTEN)
        return
    planes = [plane.but(value=call.value_of(plane), leaf=None, origin=None) for plane in planes]
    _fill(call, planes, target, whole, fill)
    call.emit(planes)


def number_part(call: Call) -> bool:
    """Give a fresh tensor channels before the first write into a part of it; return whether that was needed.

    Not where the channels of what is written lie along whole dimensions of it: those are its channels then.
    """
    target, known = call.tensors[0], call.infos[0]
    whole, planes = _whole(target), [p.lift(target.ndim) for t in call.tensors[1:] for p in call.planes(t)]
    if call.func.overloadpacket is not aten.copy_ or whole is None or not planes:
        return False
    # Only ends are cut off: other views (every third row) may hold any part of the whole.
    slices = target.stride() == whole.stride() and whole.is_contiguous()
    if not slices or all(_fits(plane, target, whole) for plane in planes):
        return False
    dims = {dim for dim in range(whole.ndim) if target.shape[dim] != whole.shape[dim]}.union(*(p.dims for p in planes))
    shape = [size if dim in dims else 1 for dim, size in enumerate(whole.shape)]
    made = Plane(call.log.fresh(math.prod(shape)).reshape(shape))
    known.storage.uniform, known.storage.value = False, None
    version = known.storage.version
    attach(whole, TensorInfo((made,), known.storage, version, read=info_of(whole).read))
    starts = _starts(target, whole)
    part = TensorInfo((made.map(lambda t: _narrowed(t, starts, target)),), known.storage, version)
    call.set_info(target, part)
    call.infos[0] = part
    return True


def _starts(target: Tensor, whole: Tensor) -> list[int]:
    """Return where a part begins in each dimension of a contiguous tensor."""
    rest, starts = int(target.storage_offset() - whole.storage_offset()), []
    for stride in whole.stride():
        starts.append(rest // stride)
        rest %= stride
    return starts


def _narrowed(tensor: Tensor, starts: Sequence[int], target: Tensor) -> Tensor:
    for dim, start in enumerate(starts):
        tensor = tensor if tensor.shape[dim] == 1 else tensor.narrow(dim, start, target.shape[dim])
    return tensor


def write_on(call: Call, planes: Sequence[Plane]) -> None:
    """Follow a further write through a view: in the whole a value is still known where both are the same."""
    target = call.tensors[0]
    whole = _whole(target)
    if whole is None or not info_of(whole).planes or not all(_fits(plane, target, whole) for plane in planes):
        return
    _fill(call, planes, target, whole, None)


def _whole(target: Tensor) -> Tensor | None:
    """Return the tensor that this is a view of."""
    return target._base if target._is_view() else info_of(target).whole


def _fill(call: Call, planes: Sequence[Plane], target: Tensor, whole: Tensor, fill: float | None) -> None:
    known = info_of(whole)
    made = []
    for plane in planes:
        placed = plane.map(lambda t, plane=plane: _placed(t, plane, target, whole))  # type: ignore[misc]
        before = next((old for old in known.current if old.dims == placed.dims), None)
        value = placed.value
        if value is not None:
            old = torch.full_like(value, torch.nan if fill is None else fill) if before is None else before.value
            value = None if old is None else torch.where(old == value, value, torch.nan)
        made.append(placed.but(value=value))
    # A tensor like another's has its channels already; no dimension varies in two planes (they were united).
    others = [old for old in known.current if all(set(old.dims).isdisjoint(plane.dims) for plane in made)]
    # finish() counts this write
    attach(whole, TensorInfo((*made, *others), known.storage, known.storage.version + 1, read=known.read))


def _dims(plane: Plane, target: Tensor, whole: Tensor) -> list[int]:
    """Return the dimensions of the whole tensor that a view's dimensions with channels are, as a whole; -1 for none."""
    found = []
    for dim in plane.dims:
        same = [
            d
            for d in range(whole.ndim)
            if whole.stride(d) == target.stride(dim) and whole.shape[d] == target.shape[dim]
        ]
        found.append(same[0] if len(same) == 1 else -1)
    return found


def _fits(plane: Plane, target: Tensor, whole: Tensor) -> bool:
    return -1 not in _dims(plane, target, whole)


def _placed(tensor: Tensor, plane: Plane, target: Tensor, whole: Tensor) -> Tensor:
    dims = _dims(plane, target, whole)
    shape = [1] * whole.ndim
    for dim, mine in zip(dims, plane.dims, strict=True):
        shape[dim] = tensor.shape[mine]
    order = sorted(range(len(dims)), key=lambda i: dims[i])
    compact = tensor.reshape([tensor.shape[mine] for mine in plane.dims])
    return compact.permute(order).reshape(shape)


def part_of(whole: Tensor, view: Tensor) -> Tensor:
    """Return the part of a tensor that a view of its twin is, with its channels."""
    layout = view.size(), view.stride(), view.storage_offset()
    part, known = whole.as_strided(*layout), info_of(whole)

    def same(ids: Tensor) -> Tensor:
        return ids.contiguous().as_strided(*layout)

    planes = [squash(as_view(plane, whole.shape, same), range(view.ndim)) for plane in known.current]
    kept = tuple(plane for plane in planes if plane.dims)
    attach(part, TensorInfo(kept, known.storage, known.storage.version, whole=whole))
    return part


def joins_fresh(func: Any, args: Any) -> bool:
    """Return whether a concatenation joins fresh tensors of one value with others."""
    if getattr(func, "overloadpacket", None) is not aten.cat:
        return False
    fresh = [info_of(tensor).uniform for tensor in args[0]]
    return any(fresh) and not all(fresh)


def number_fresh(call: Call, tensors: Sequence[Tensor], dim: int) -> list[TensorInfo]:
    """Return the infos of tensors to join; fresh ones of one value, whose size the model's code chose, get channels."""
    infos = [call.info(tensor) for tensor in tensors]
    if all(info.uniform for info in infos):
        return infos
    for number, (tensor, info) in enumerate(zip(tensors, infos, strict=True)):
        if info.uniform and tensor.shape[dim] > 1:
            shape = [size if d == dim else 1 for d, size in enumerate(tensor.shape)]
            value = None if info.storage.value is None else torch.full(shape, info.storage.value).double()
            plane = Plane(call.log.fresh(tensor.shape[dim]).reshape(shape), value)
            infos[number] = TensorInfo((plane,), info.storage, info.storage.version)
            call.set_info(tensor, infos[number])
            call.infos[[id(t) for t in call.tensors].index(id(tensor))] = infos[number]
    return infos
