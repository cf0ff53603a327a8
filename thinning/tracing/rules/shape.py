"""Shape operations: the same operation on the integers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..call import Call
from ..constants import stored
from ..labels import SINGLE, Plane, Shape, as_view, numel
from ..registry import operations, rule

aten = torch.ops.aten


@rule(aten.clone, aten._to_copy, aten.detach, aten.alias, aten.contiguous, aten.lift_fresh, aten.detach_)
def same(call: Call) -> None:
    """Pass the planes on to a copy, another type, another memory format."""
    planes, dtype = call.planes(call.args[0]), call.outputs()[0].dtype
    if dtype.is_floating_point or call.tensors[0].dtype == dtype:
        call.same_weight = call.info(call.args[0]).weight
    else:
        values = [call.value_of(plane) for plane in planes]
        planes = tuple(
            p.but(value=None if v is None else stored(v, dtype)) for p, v in zip(planes, values, strict=True)
        )
    call.emit(planes)


@rule(aten.as_strided, aten.as_strided_)
def restride(call: Call) -> None:
    """Other strides for the same shape (memory formats); anything else cannot be followed."""
    if call.shapes[0] == tuple(call.outputs()[0].shape) and not call.arg(3, "storage_offset"):
        call.emit(call.planes(call.args[0]))
    else:
        call.freeze(call.planes(call.args[0]), "strides of its own")


@rule(aten.t, aten.transpose, aten.permute, aten.t_, aten.transpose_, aten.movedim, aten.swapaxes, aten.numpy_T)
def permute(call: Call) -> None:
    """Reorder the dimensions; a parameter stays the parameter."""
    _views(call)
    weight = call.info(call.args[0]).weight
    if weight is not None:
        axes = torch.empty(tuple(range(2, 2 + len(weight[1]))), device="meta")
        # The operation itself, on a tensor whose sizes say where each dimension went (from 2 on, for 1 would squeeze).
        order = [size - 2 for size in call.func(axes, *call.args[1:], **call.kwargs).shape]
        call.same_weight = (weight[0], tuple(weight[1][axis] for axis in order))


@rule(aten.expand, aten.expand_copy)
def expand(call: Call) -> None:
    """Repetition without memory; torch computes a linear layer of a batch with its weight repeated like this."""
    pairs = _views(call)
    matrix = call.args[0]
    if call.info(matrix).weight is not None and tuple(call.out.shape[-2:]) == call.shapes[0]:
        call.repeated = matrix
    else:
        call.emit([*(made for _, made in pairs), *_copies(call)])


def _copies(call: Call) -> list[Plane]:
    """Return new channels along the dimensions that one index becomes several of: what meets them decides how many."""
    new = tuple(call.outputs()[0].shape)
    old = (1,) * (len(new) - len(call.shapes[0])) + call.shapes[0]
    # The first is the batch, unless it makes of one filter (1, 1, size) one for each channel.
    first = 0 if len(new) > 2 and new[1] == 1 and new[0] != call.log.batch else 1
    last = 1 if call.info(call.args[0]).weight else len(new)
    repeated = [dim for dim in range(first, last) if old[dim] == 1 < new[dim]]
    layouts = [[new[dim] if d == dim else 1 for d in range(len(new))] for dim in repeated]
    return [Plane(call.log.fresh(max(layout)).reshape(layout), copies=True) for layout in layouts]


@rule(aten.squeeze, aten.unsqueeze)
def single(call: Call) -> None:
    """Follow a dimension of size 1 that comes or goes; a parameter stays the parameter."""
    _views(call)
    stay_weight(call)


def stay_weight(call: Call) -> None:
    """Let a parameter of which only dimensions of size 1 come or go stay the parameter."""
    weight, new = call.info(call.args[0]).weight, tuple(call.outputs()[0].shape)
    if weight is None:
        return
    axes = [axis for axis in weight[1] if axis != SINGLE]
    sizes = [size for size, axis in zip(call.shapes[0], weight[1], strict=True) if axis != SINGLE]
    if 1 not in sizes and [size for size in new if size > 1] == sizes:
        left = iter(axes)
        call.same_weight = (weight[0], tuple(next(left) if size > 1 else SINGLE for size in new))


@rule(aten.squeeze_, aten.unsqueeze_, aten.expand_as)
@rule(aten.diagonal, aten.unfold, aten.view_as, aten.real, aten.imag, aten.lift, aten.conj)
def plain_view(call: Call) -> None:
    """Follow any other view of the whole tensor."""
    _views(call)


def _views(call: Call, parts_of: int | None = None) -> list[tuple[Plane, Plane]]:
    """Emit the same view of each plane, of parts of a dimension maybe; return the pairs of planes before and after."""
    many = isinstance(call.out, (list, tuple))
    shape = _with_rows(call.shapes[0], parts_of)
    pairs = []
    for position, out in enumerate(call.outputs()):
        function = _again(call, position if many else None)
        made = [(plane, as_view(plane, shape, function)) for plane in call.planes(call.args[0])]
        call.emit([plane for _, plane in made], out)
        pairs += made
    return pairs


def _with_rows(shape: Shape, parts_of: int | None) -> Shape:
    """Return a shape with one row for none, but along the dimension of which an operation takes parts."""
    if 0 not in shape:
        return shape
    return [size or int(parts_of is None or dim != parts_of % len(shape)) for dim, size in enumerate(shape)]


def _again(call: Call, position: int | None = None) -> Callable[[Tensor], Tensor]:
    def function(tensor: Tensor) -> Tensor:
        result = call.func(tensor, *call.args[1:], **call.kwargs)
        return result if position is None else result[position]

    return function


@rule(aten.select, aten.slice, aten.unbind, aten.split_with_sizes, aten.narrow, aten.unsafe_split_with_sizes)
def part(call: Call) -> None:
    """Take a part of a tensor. One single channel by its number cannot be followed: then freeze the axis."""
    pairs, old = _views(call, call.named("dim", 0)), call.shapes[0]
    # An expert that gets no rows of the example has its channels all the same.
    for out in call.outputs():
        if out.numel() == 0 < numel(old) and out.ndim == len(old):
            call.emit([p for p in call.planes(call.args[0]) if all(out.shape[d] == old[d] for d in p.dims)], out)
    for plane, made in pairs:
        # x[:, 0] of channels: after a removal number 0 may be another channel.
        if made.ids.numel() == 1:
            call.freeze([plane], "one channel is taken by its number")


@rule(aten.split, aten.chunk, aten.unsafe_split, aten.unsafe_chunk)
def split(call: Call) -> None:
    """Unite the same position of parts of equal size, which must stay of equal size."""
    part(call)
    dim = call.arg(2, "dim", 0) % len(call.shapes[0])
    sizes = {out.shape[dim] for out in call.outputs()}
    for plane in call.planes(call.args[0]):
        if plane.ids.shape[dim] > 1 and len(sizes) == 1:
            # chunk(2) of 30 channels is 15 + 15, of 29 it is 15 + 14: the code relies on halves.
            first, *others = plane.ids.split(sizes.pop(), dim)
            sizes = {first.shape[dim]}
            for other in others:
                call.unite(first, other)


@rule(aten.roll, aten.flip)
def reorder(call: Call) -> None:
    """Move elements along dimensions of which most hold no channels."""
    call.emit([call.known(plane).map(_again(call)) for plane in call.planes(call.args[0])])


@rule(aten.repeat)
def repeat(call: Call) -> None:
    """Repetition: a repeated dimension without channels stays one; with channels, every copy is the same channel."""
    times = list(call.args[1])
    planes = []
    for plane in call.planes(call.args[0]):
        plane = plane.but(value=call.value_of(plane)).lift(len(times))  # still the parameter's own, several times
        own = [count if size > 1 else 1 for count, size in zip(times, plane.ids.shape, strict=True)]
        planes.append(plane.map(lambda t, own=own: t.repeat(own)))  # type: ignore[misc]
    call.emit([*planes, *_copies(call)])


PADS = " ".join(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3))


@rule(aten.constant_pad_nd, aten.pad, aten._pad_circular, *operations(PADS))
def pad(call: Call) -> None:
    """Pad: what is added along an axis of channels is no channel; elsewhere it belongs to the channel it pads."""
    amounts = list(call.args[1])
    fill = float(call.arg(2, "value", 0) or 0) if call.func.overloadpacket is aten.constant_pad_nd else None
    planes = []
    for plane in call.planes(call.args[0]):
        # Known values next to padding: only where they equal the fill are all elements of the channel alike.
        padded = {plane.ids.ndim - 1 - k // 2 for k in range(len(amounts))}  # of 0 too: inputs of other sizes get more
        own = [amount if plane.ids.shape[plane.ids.ndim - 1 - k // 2] > 1 else 0 for k, amount in enumerate(amounts)]
        value = plane.value
        if fill is not None and value is not None and padded - set(plane.dims):
            value = torch.where(value == fill, value, torch.nan)
        if any(own):
            # Reflected channels would be channels of their own; a negative pad cuts channels off by their number.
            if fill is None or min(own) < 0:
                call.freeze([plane], "padded along the channels")
                continue
            value = None if value is None else aten.constant_pad_nd(value, own, float("nan"))
            plane = plane.but(ids=aten.constant_pad_nd(plane.ids, own, 0), leaf=None, origin=None)
        planes.append(plane.but(value=value))
    call.emit(planes)


@rule(aten.channel_shuffle)
def channel_shuffle(call: Call) -> None:
    """Channel shuffle: the same position of each group goes together."""
    count = call.args[1]
    for plane in call.planes(call.args[0]):
        if plane.ids.shape[1] > 1:
            grouped = plane.ids.transpose(0, 1).reshape(count, -1)
            call.unite(grouped, grouped[:1])
    call.emit([call.known(plane).map(_again(call)) for plane in call.planes(call.args[0])])


@rule(aten.pixel_shuffle)
def pixel_shuffle(call: Call) -> None:
    """r*r neighbouring channels become one channel of a larger image: they go together."""
    block = call.args[1] ** 2
    _blocks(call, -3, block)


@rule(aten.col2im)
def fold(call: Call) -> None:
    """Unite the kernel's positions of one channel."""
    kernel = call.args[2]
    _blocks(call, -2, kernel[0] * kernel[1])


def _blocks(call: Call, dim: int, block: int) -> None:
    planes = []
    extra = call.outputs()[0].ndim - len(call.shapes[0])
    for plane in call.planes(call.args[0]):
        if plane.dims != (plane.ids.ndim + dim,):
            call.freeze([plane], "varies along another dimension")
            continue
        blocks = plane.ids.reshape(-1, block)
        call.unite(blocks, blocks[:, :1])
        zero = None if plane.value is None else plane.value.reshape(-1, block)
        value = None if zero is None else torch.where((zero == 0).all(1), 0.0, torch.nan)
        shape = [*plane.ids.shape[:dim], len(blocks), *plane.ids.shape[dim + 1 :], *[1] * extra]
        ids = blocks[:, 0].reshape(shape)
        planes.append(plane.but(ids=ids, value=None if value is None else value.reshape(shape), leaf=None, origin=None))
    call.emit(planes)


@rule(aten.pixel_unshuffle, aten.im2col)
def unfold(call: Call) -> None:
    """Repeat each channel, which becomes several neighbouring ones."""
    dim = 1 if call.func.overloadpacket is aten.im2col else len(call.shapes[0]) - 3
    count = call.outputs()[0].shape[dim] // call.shapes[0][dim]
    drop = len(call.shapes[0]) - call.outputs()[0].ndim
    planes = []
    for plane in call.planes(call.args[0]):
        if plane.dims != (dim,):
            call.freeze([plane], "varies along another dimension")
            continue
        value = None if plane.value is None else torch.where(plane.value == 0, 0.0, torch.nan)
        wide = plane.but(value=value, leaf=None, origin=None).map(lambda t: t.repeat_interleave(count, dim))
        planes.append(wide.map(lambda t: t.squeeze(-1)) if drop else wide)
    call.emit(planes)
