"""Element-wise operations: what is combined is the same channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..call import Call
from ..labels import Plane, TensorInfo
from ..registry import operations, rule
from .buffers import number_part, write_fresh, write_on
from .elementwise_values import CONSTANTS, PRODUCTS, QUOTIENTS, value_of

aten = torch.ops.aten
SUMS = (aten.add, aten.add_, aten.sub, aten.sub_, aten.rsub)


def combine(
    call: Call, infos: Sequence[TensorInfo], shapes: Sequence[Sequence[int]], out: Sequence[int]
) -> list[list[Plane]]:
    """Unite the planes of operands that are broadcast to shape `out`.

    Returns, for each plane of the result, the operands' planes that became it, the first of them with its final ids.
    """
    ndim = len(out)
    shapes = [[1] * (ndim - len(shape)) + list(shape) for shape in shapes]
    waiting = [[plane.lift(ndim).but(operand=i)] for i, info in enumerate(infos) for plane in info.current]
    results = []
    while waiting:
        # Planes that share an axis belong together, and what they share with others too: grown until nothing joins.
        group, dims = waiting.pop(0), set[int]()
        while True:
            dims = {dim for plane in group for dim in plane.dims}
            joined = [other for other in waiting if dims & set(other[0].dims)]
            if not joined:
                break
            waiting = [other for other in waiting if not dims & set(other[0].dims)]
            group += [plane for other in joined for plane in other]
        # A tensor with elements of its own and no channels (a table of positions) cannot shrink: what meets it stays.
        fixed = {dim: why for dim in dims if (why := _fixed_by(infos, shapes, dim, ndim))}
        if united := _united(call, group, fixed):
            results.append(united)
    return results


def own_shape(tensor: Tensor) -> list[int]:
    """Return a tensor's shape in memory: along a dimension that was expanded all elements are the same one."""
    # So that adding a number that was expanded to (batch, channels) does not count as a tensor of fixed size.
    strides = tensor.stride() if tensor.layout == torch.strided else tensor.shape
    return [size if stride else 1 for size, stride in zip(tensor.shape, strides, strict=True)]


def _fixed(info: TensorInfo, shape: Sequence[int], dim: int, ndim: int) -> bool:
    """Return whether the operand has elements of its own along `dim`, and they are no channels."""
    if shape[dim] == 1 or info.uniform:
        return False
    return all(plane.lift(ndim).ids.shape[dim] == 1 for plane in info.planes)


def _fixed_by(infos: Sequence[TensorInfo], shapes: Sequence[Sequence[int]], dim: int, ndim: int) -> str:
    """Return the reason why channels along `dim` cannot shrink, that of the first operand that is fixed; "" if none."""
    for info, shape in zip(infos, shapes, strict=True):
        if _fixed(info, shape, dim, ndim):
            return f"meets a tensor of fixed size{info.cause and f' ({info.cause})'}"
    return ""


def _united(call: Call, group: list[Plane], fixed: Mapping[int, str]) -> list[Plane]:
    kept = []
    for plane in group:
        left: Plane | None = plane
        for dim, why in fixed.items():
            left = call.collapse(left, dim, why) if left is not None else None
        kept += [left] if left is not None else []
    if not kept:
        return []
    most = max(kept, key=lambda plane: len(plane.dims))
    tables = _axes_of_tables(kept, most)
    for table in tables:
        call.log.link(most.ids, table.ids, SHARED.format(call.place))
    first, *others = [plane for plane in kept if plane not in tables]
    ids = first.ids
    for other in others:
        ids = meet(call, ids, other.ids)
    if ids is kept[0].ids:
        return kept
    # Looked up before the ids are others: a parameter's values are found by its own.
    value = call.value_of(kept[0])
    return [kept[0].but(ids=ids, value=None if value is None else value.expand(ids.shape)), *kept[1:]]


def _axes_of_tables(group: Sequence[Plane], most: Plane) -> list[Plane]:
    """Return the planes that are each an axis of an operand whose axes all vary in `most` together.

    A table (parts, width) beside what a layer makes for all parts: neither axis says which of the two may go.
    """
    axes = [plane for plane in group if plane.operand != most.operand and len(plane.dims) < len(most.dims)]
    return [plane for plane in axes if sum(plane.operand == other.operand for other in axes) > 1]


def meet(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Let two operands' channels meet element by element; return those of the result.

    What does not vary along the leading axis of the other (a table for all heads) is shared, see `log.Link`.
    """
    if a is b:
        return a
    more, less = sorted((a, b), key=lambda ids: (_leads(ids), -sum(size > 1 for size in ids.shape)))
    within = not any(m == 1 < n for m, n in zip(more.shape, less.shape, strict=True))
    if within and _leads(more) < _leads(less):
        call.log.link(more, less, SHARED.format(call.place))
        return more
    if a.shape == b.shape and sum(size > 1 for size in a.shape) == 1:
        return _meet_in_rows(call, a, b)
    if within and (first := _first(more, less.shape)) is not more:
        call.unite(more, first)
        return meet(call, first, less).expand(more.shape)
    call.unite(a, b)
    return torch.broadcast_tensors(a, b)[0]


SHARED = "{}: serves all of an axis of which parts may go"


def _meet_in_rows(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Unite one by one; where several in a row meet the same one (queries that share a key), note it as shared."""
    # Mostly no channel comes twice in a row, in neither: then there is nothing that several share.
    if not any(bool(ids[0] == ids[1]) for ids in (a.reshape(-1), b.reshape(-1))):
        call.unite(a, b)
        return a
    period = max(_period(a), _period(b))  # batch and heads are one axis in a matrix product
    for many, few in ((a, b), (b, a)):
        each, shared = many.reshape(-1)[:period], few.reshape(-1)[:period]
        if count := _repetition(shared, each):
            rows = each.reshape(-1, count)
            call.log.rows(rows, shared.reshape(-1, count)[:, :1], SHARED.format(call.place))
            return many
    call.unite(a, b)
    return a


def _first(ids: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the first channel along those dimensions that `shape` lacks."""
    for dim, size in enumerate(shape):
        if size == 1 < ids.shape[dim]:
            ids = ids.narrow(dim, 0, 1)
    return ids


def _leads(ids: Tensor) -> int:
    """Return the first dimension along which channels vary."""
    return next((dim for dim, size in enumerate(ids.shape) if size > 1), ids.ndim)


def _period(ids: Tensor) -> int:
    """Return after how many channels all come again from the first on; their number if they do not."""
    flat = ids.reshape(-1)
    again = (flat[1:] == flat[0]).nonzero().flatten() + 1
    for period in again.tolist() if len(again) < 1000 else []:
        if len(flat) % period == 0 and bool((flat.reshape(-1, period) == flat[:period]).all()):
            return int(period)
    return len(flat)


def _repetition(few: Tensor, many: Tensor) -> int:
    """Return how often each channel of `few` comes in a row while those of `many` all differ; 0 if not so."""
    each, counts = few.reshape(-1).unique_consecutive(return_counts=True)
    count = int(counts[0])
    alike = count > 1 and bool((counts == count).all()) and len(each.unique()) == len(each)
    return count if alike and bool(many.all()) and len(many.unique()) == many.numel() else 0


def merge(group: Sequence[Plane], value: Tensor | None = None) -> Plane:
    """Make one plane of a group of united ones."""
    if len(group) == 1:
        return group[0].but(value=value, origin=None)
    sources = frozenset[int]().union(*(plane.sources for plane in group))
    return Plane(group[0].ids, value, None, None, sources)


def elementwise(call: Call) -> None:
    """Follow any element-wise operation, in place or not."""
    out = call.outputs()[0]
    # `out = torch.zeros(b, 14, h, w); out[:, :8] = y`: the 14 and the 8 may be numbers in the code.
    fresh = call.func._schema.is_mutable and not call.infos[0].planes and call.infos[0].storage.uniform
    if fresh and not number_part(call):
        write_fresh(call)
        return
    groups = combine(call, call.infos, [own_shape(t) for t in call.tensors], out.shape)
    if not _adds_bias(call, groups):
        _assign_roles(call, groups)
    planes = [merge(group, value_of(call, group)) for group in groups]
    if call.func._schema.is_mutable:
        write_on(call, planes)
    for tensor in call.outputs():
        call.emit(planes, tensor)


def _adds_bias(call: Call, groups: Sequence[Sequence[Plane]]) -> bool:
    """Return whether this is a linear layer's own bias, which torch adds apart where the input is not contiguous."""
    origin, leaf = (groups[0][0].origin, groups[0][-1].leaf) if groups and len(groups[0]) == 2 else (None, None)
    if getattr(type(call.tracer.frame.module), "forward", None) is not nn.Linear.forward or origin is None:
        return False
    if leaf is not None and call.func.overloadpacket in SUMS:
        call.log.role(leaf, "out")
        call.log.layers[origin].bias = leaf[0]
    return leaf is not None


def _assign_roles(call: Call, groups: Sequence[Sequence[Plane]]) -> None:
    packet = getattr(call.func, "overloadpacket", None)
    role: Any = "scale" if packet in PRODUCTS + QUOTIENTS else "shift" if packet in SUMS else "vector"
    for group in groups:
        if len(group) > 1:
            for plane in group:
                call.log.role(plane.leaf, role)


UNTAGGED = (
    "hardswish hardswish_ hardsigmoid hardsigmoid_ _prelu_kernel copy_ log_sigmoid_forward rrelu_with_noise "
    "masked_fill_ polar complex "
    "softplus threshold_ clamp_ clamp_min_ clamp_max_ hardtanh_ leaky_relu_ native_dropout bernoulli "
    "bernoulli_ uniform_ normal_ exponential_ geometric_ log_normal_ cauchy_ random_ "
    "empty_like rand_like randn_like fake_quantize_per_tensor_affine "
    "leaky_relu celu_ elu_ selu_ ldexp _conj_physical"  # torch 2.14 tags these, 2.6 does not
)
rule(*operations(UNTAGGED), *CONSTANTS)(elementwise)


def is_pointwise(operation: Any) -> bool:
    """Return whether torch itself tags the operation as element-wise."""
    return torch.Tag.pointwise in getattr(operation, "tags", ())
