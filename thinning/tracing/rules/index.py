"""Indexing: channels that numbers choose."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..call import Call
from ..labels import Plane
from ..registry import rule

aten = torch.ops.aten


@rule(aten.index_select, aten.gather, aten.take_along_dim)
def pick(call: Call) -> None:
    """Freeze channels along the dimension of which an index chooses elements."""
    dim = call.args[1] % len(call.shapes[0])
    chosen = call.args[2] if call.func.overloadpacket is aten.index_select else None
    planes = [_picked(call, plane, dim, chosen) for plane in call.planes(call.args[0])]
    call.emit([plane for plane in planes if plane is not None])


def _picked(call: Call, plane: Plane, dim: int, chosen: Tensor | None) -> Plane | None:
    """Return what is left of a plane of which an index takes a part along a dimension: known where the code says it."""
    if plane.ids.shape[dim] == 1:
        return plane
    numbers = call.info(chosen).numbers
    if numbers is None or numbers.dtype == torch.bool or numbers.ndim != 1:
        call.freeze([plane], "chosen by an index")
        return None
    numbers = numbers.long() % plane.ids.shape[dim]
    picked = call.known(plane).map(lambda t: t.index_select(dim, numbers))
    if picked.ids.numel() == 1:
        call.freeze([plane], "one channel is taken by its number")
    return picked


def _each(index: Tensor | None) -> list[Tensor | None]:
    """Return an index for each dimension that it takes: a mask takes as many as it has."""
    mask = index is not None and index.dtype == torch.bool and index.ndim
    return [torch.zeros(1, dtype=torch.int64)] * index.ndim if index is not None and mask else [index]


@rule(aten.index, aten._unsafe_index)
def index(call: Call) -> None:
    """Advanced indexing; channels along the indexed dimensions are frozen, the other dimensions move along."""
    indices: list[Any] = [item for index in call.args[1] for item in _each(index)]
    used = [dim for dim, item in enumerate(indices) if item is not None]
    planes = []
    for plane in call.planes(call.args[0]):
        if len(used) == 1 and used[0] in plane.dims and call.info(indices[used[0]]).numbers is not None:
            picked = _picked(call, plane, used[0], indices[used[0]])
            planes += [] if picked is None else [picked]
        elif set(plane.dims) & set(used) or any(item.dtype == torch.bool for item in indices if item is not None):
            call.freeze([plane], "chosen by an index")
        else:
            zeros = [None if item is None else torch.zeros((1,) * item.ndim, dtype=torch.int64) for item in indices]
            planes.append(plane.map(lambda t, zeros=zeros: t[tuple(slice(None) if z is None else z for z in zeros)]))  # type: ignore[misc]
    call.emit(planes)
