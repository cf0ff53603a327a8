"""Concatenation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..call import Call
from ..labels import Plane, TensorInfo
from ..registry import rule
from .buffers import number_fresh
from .elementwise import combine, merge

aten = torch.ops.aten


@rule(aten.cat, aten.concat, aten.concatenate)
def cat(call: Call) -> None:
    """Join the integers along the joined dimension; unite them along the others."""
    dim = call.arg(1, "dim", 0) % call.outputs()[0].ndim
    # Nothing of an empty part is in the result: the start of a list in old code, what is left of heads that are turned
    # as a whole.
    tensors = [t for t in call.args[0] if t.numel()]
    planes = _join(call, number_fresh(call, tensors, dim), [tuple(t.shape) for t in tensors], dim)
    # But it has to fit along the other dimensions (no class token, as wide as the tokens).
    for part in (t for t in call.args[0] if not t.numel()):
        for empty in call.planes(part):
            for plane in planes:
                if plane.dims == empty.dims and dim not in plane.dims:
                    call.unite(plane.ids, empty.ids)


@rule(aten.stack)
def stack(call: Call) -> None:
    """Add a dimension that holds no channels; unite along the others."""
    dim = call.arg(1, "dim", 0) % call.outputs()[0].ndim
    infos, shapes = [], []
    for tensor in call.args[0]:
        # A new axis without channels: from here on it is a concatenation along that axis.
        planes = tuple(plane.map(lambda t: t.unsqueeze(dim)) for plane in call.planes(tensor))
        info = call.info(tensor)
        infos.append(TensorInfo(planes, info.storage, info.storage.version))
        shapes.append((*tensor.shape[:dim], 1, *tensor.shape[dim:]))
    _join(call, infos, shapes, dim)


def _join(call: Call, infos: Sequence[TensorInfo], shapes: Sequence[tuple[int, ...]], dim: int) -> list[Plane]:
    out = list(call.outputs()[0].shape)
    # Asked once: of a tensor that was written to through a view, each answer has planes of its own.
    infos = [TensorInfo(info.current, info.storage, info.storage.version) for info in infos]
    along = _along(infos, dim)
    planes = []
    if any(plane is not None for plane in along):
        planes.append(_joined(call, along, shapes, dim))
    others = [
        TensorInfo(tuple(p for p in info.current if p is not own), info.storage, info.storage.version)
        for info, own in zip(infos, along, strict=True)
    ]
    across = [(*shape[:dim], 1, *shape[dim + 1 :]) for shape in shapes]
    # Where what is joined varies along another dimension too, the others are of fixed size to `combine`.
    for group in combine(call, others, across, [*out[:dim], 1, *out[dim + 1 :]]):
        for plane in group:  # a class token makes its channels, as a bias does
            call.log.role(plane.leaf, "shift")
        planes.append(merge(group, _common(call, group) if len(group) == len(infos) else None))
    call.emit(planes)
    return planes


def _along(infos: Sequence[TensorInfo], dim: int) -> list[Plane | None]:
    """Return the plane of each part that is joined along `dim`."""
    found = [next((plane for plane in info.current if plane.ids.shape[dim] > 1), None) for info in infos]
    varying = {d for plane in found if plane is not None for d in plane.dims}
    # A part that is turned by a table of fixed size has one channel a head, beside a part that has one a place.
    return [
        plane or next((p for p in info.current if set(p.dims) < varying), None)
        for plane, info in zip(found, infos, strict=True)
    ]


def _joined(call: Call, along: Sequence[Plane | None], shapes: Sequence[tuple[int, ...]], dim: int) -> Plane:
    """Return the integers one after another; a part without channels is 0."""
    varying = {d for plane in along if plane is not None for d in plane.dims} - {dim}
    ids, values = [], []
    for plane, shape in zip(along, shapes, strict=True):
        # Spelled out only along axes in which some part varies: the rest stays compact.
        target = [shape[d] if d == dim or d in varying else 1 for d in range(len(shape))]
        ids.append(torch.zeros(target, dtype=torch.int64) if plane is None else plane.ids.expand(target))
        value = None if plane is None else call.value_of(plane)
        values.append(torch.full(target, torch.nan, dtype=torch.float64) if value is None else value.expand(target))
    joined = torch.cat(values, dim)
    sources = frozenset[int]().union(*(plane.sources for plane in along if plane is not None))
    return Plane(torch.cat(ids, dim), joined if not bool(joined.isnan().all()) else None, None, None, sources)


def _common(call: Call, group: Sequence[Plane]) -> Tensor | None:
    """Return the value that all parts agree on."""
    values = [value for value in map(call.value_of, group) if value is not None]
    if len(values) < len(group):
        return None
    # What is joined along an axis without channels is one channel in all parts: known only where all agree.
    first = values[0]
    for value in values[1:]:
        first = torch.where(first == value, first, torch.nan)
    return first
