"""Views: the same elements in other axes, which may split channels in several or merge several kinds into one."""

from __future__ import annotations

import torch
from torch import nn

from ..call import Call
from ..labels import Plane, Shape, numel, reshape
from ..registry import rule
from .shape import stay_weight

aten = torch.ops.aten


@rule(aten.view, aten._unsafe_view, aten._reshape_alias, aten.reshape, aten.flatten, aten.unflatten, aten.view_copy)
def view(call: Call) -> None:
    """Reshape; an axis of channels that becomes several is noted, since removal has to follow one of them."""
    out = call.outputs()[0]
    old, new = (_with_one(tuple(shape)) for shape in (call.shapes[0], out.shape))
    if numel(old) != numel(new) or call.tensors[0].dtype != out.dtype:
        call.freeze(call.planes(call.args[0]), "an empty tensor or another type")
        return
    planes = []
    for plane in sorted(call.planes(call.args[0]), key=lambda plane: (plane.copies, plane.dims)):
        made = reshape(plane, old, new)
        # Its code checks embed_dim against the input and divides it by num_heads in C: none of it can change.
        if isinstance(call.tracer.frame.module, nn.MultiheadAttention):
            call.freeze([plane], "nn.MultiheadAttention shares its embedding size out to a number of heads")
        # (batch, C) to (batch, heads, C / heads): the code keeps one of the two numbers, which one shows in the
        # rehearsal.
        elif len(made.dims) > len(plane.dims):
            call.log.split(made.ids)
        planes.append(made)
    stay_weight(call)
    if call.info(call.args[0]).repeated is not None and old[-2:] == new[-2:]:
        call.repeated = call.info(call.args[0]).repeated
    call.emit(_apart(call, planes))


def _with_one(shape: Shape) -> Shape:
    """Return a shape with one row for none: an expert without rows of the example has its channels all the same."""
    return tuple(size or 1 for size in shape)


def _apart(call: Call, planes: list[Plane]) -> list[Plane]:
    """Of two kinds of channels that are merged into one dimension freeze the second, so that the first may still go."""
    dims = [dim for plane in planes for dim in plane.dims]
    mixed = [plane for plane in planes if any(dims.count(dim) > 1 for dim in plane.dims)]
    # A matrix for each expert, side by side (`einsum("bd,edh->beh")`): units may go, of all experts alike.
    if sorted(plane.leaf[1] for plane in mixed if plane.leaf is not None) == [0, 2]:
        experts = next(plane for plane in mixed if plane.leaf is not None and plane.leaf[1] == 0)
        call.freeze([experts], "merges two kinds of channels")
        return _apart(call, [plane for plane in planes if plane is not experts])
    # Filters that are flattened: their channels can still be told apart, all positions of a kernel being one channel's.
    kernel = [plane for plane in mixed if plane.leaf is not None and plane.leaf[1] >= 2]
    call.freeze(kernel, "the size of a kernel")
    taken, kept = set[int](), []
    # Those that a layer makes first: what a table repeats for each of them has no other use.
    made = sorted((plane for plane in planes if plane not in kernel), key=lambda plane: not plane.sources)
    for plane in made if mixed else planes:
        if taken.isdisjoint(plane.dims):
            kept.append(plane)
            taken |= set(plane.dims)
        else:
            call.freeze([plane], "merges two kinds of channels")
    return kept
