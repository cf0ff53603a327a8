"""Convolutions: plain, grouped, depthwise, transposed; 1d, 2d, 3d."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.modules.conv import _ConvNd

from ..call import Call
from ..entries import AttributeCount, LayerCall, Read
from ..labels import Plane, numel
from ..registry import rule
from .elementwise import own_shape
from .layer import bias_value, chain, follow_bias, leaf_along, output_value

aten = torch.ops.aten
FIXED = "reads an input of fixed size"
FIXED_KERNEL = "the size of a kernel is fixed"


@dataclass(frozen=True)
class Kernel:
    """How a kernel goes over an image.

    `padded`: not all places see as many of its elements. `image`: which of its dimensions leave each place to itself
    ("alone"), and which sum over all of them ("whole").
    """

    transposed: bool = False
    padded: bool = True
    image: Mapping[int, str] = field(default_factory=dict)


@rule(aten.convolution, aten._convolution, aten.convolution_overrideable)
def convolution(call: Call) -> None:
    """Read the input's channels and make new ones."""
    # A transposed convolution mixes positions that see other numbers of kernel elements, as padding does.
    transposed = bool(call.args[6])
    x, weight, bias = call.args[:3]
    kernel = Kernel(transposed, transposed or any(call.args[4]), _image(call))
    follow(call, x, weight, bias, int(call.args[8]), kernel)


def _image(call: Call) -> dict[int, str]:
    """Return what is known of the kernel's dimensions (see `Kernel`)."""
    x, weight, _, stride, padding, dilation, transposed, more = call.args[:8]
    found = {}
    for at, (dim, size) in enumerate(enumerate(weight.shape[2:], 2)):
        once = [values[at % len(values)] for values in (stride, padding, dilation, more)]
        if size == 1 and once[0] == 1 and not once[1] and not once[3]:
            found[dim] = "alone"
        elif size == x.shape[dim - weight.ndim] and once[1:] == [0, 1, 0] and not transposed:
            found[dim] = "whole"
    return found


def follow(
    call: Call,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    kernel: Kernel = Kernel(),
) -> None:
    """Follow a convolution of an input by a weight."""
    transposed, padded, image = kernel.transposed, kernel.padded, kernel.image
    # Without a batch dimension the channels come first.
    dim = 1 if len(call.shapes[0]) == weight.ndim else 0
    # A kernel's own axes are channels only where the image has some there.
    others = [plane for plane in call.planes(weight) if min(plane.dims) > 1]
    summed = [plane for plane in call.planes(x) if _whole(plane, image, dim) is not None]
    axes = {_whole(plane, image, dim) for plane in summed}
    call.freeze([plane for plane in others if not axes.issuperset(plane.dims)], "the size of a kernel")
    inputs = _input(call, x, dim)
    if transposed and groups > 1 and groups != x.shape[dim]:
        # The three layouts of a weight: (out, in / groups), turned round for a transposed convolution, (channels, 1).
        made = _transposed_groups(call, inputs, weight, groups)
    elif groups > 1 and groups == x.shape[dim]:
        made = _depthwise(call, inputs, weight, transposed)
    else:
        made = _grouped(call, inputs, weight, groups, transposed)
    for plane in summed:
        _sum_up(call, plane, weight, image, dim)
    left = [plane for plane in call.planes(x) if plane.ids.shape[dim] == 1 and plane not in summed]
    planes = _passing(call, left, bias, image, dim)
    if made is not None:
        entry = _log_layer(call, x, weight, transposed, groups, inputs, made)
        made = follow_bias(call, made, bias, dim, entry)
        made = _labelled(call, made, entry, inputs, bias)
        value = _value(call, weight, inputs, groups, bias, (transposed, padded))
        planes.append(_placed(call, made, value, dim))
        if not _is_depthwise(inputs, groups):  # which has no sum over its inputs: it passes channels on
            _read(call, inputs, entry, padded)
    elif inputs is not None:
        call.read(inputs)
    call.emit(planes)


def _placed(call: Call, made: Plane, value: Tensor | None, dim: int) -> Plane:
    """Return the plane laid along a dimension of the result."""
    shape = [made.ids.numel() if d == dim else 1 for d in range(call.outputs()[0].ndim)]
    return made.but(ids=made.ids.reshape(shape), value=None if value is None else value.reshape(shape))


def _input(call: Call, x: Tensor, dim: int) -> Plane | None:
    """Return the input's channels as a plane of one dimension; varying elsewhere freezes."""
    plane = call.info(x).along(dim)
    if plane is None:
        return None
    plane = next(p for p in call.planes(x) if p.ids.shape[dim] > 1)
    for other in set(plane.dims) - {dim}:
        collapsed = call.collapse(plane, other, "varies within the image")
        plane = plane if collapsed is None else collapsed
    return plane.map(lambda t: t.reshape(-1))


def _whole(plane: Plane, image: Mapping[int, str], dim: int) -> int | None:
    """Return the kernel's dimension that sums over all channels of a plane of the input, if there is one."""
    if len(plane.dims) != 1 or plane.dims[0] <= dim:
        return None
    at = plane.dims[0] - dim + 1
    return at if image.get(at) == "whole" else None


def _sum_up(call: Call, plane: Plane, weight: Tensor, image: Mapping[int, str], dim: int) -> None:
    """Read channels that are an axis of the image (embeddings of words), each by its own column of the kernel."""
    at = _whole(plane, image, dim)
    columns = None if at is None else call.info(weight).along(at)
    if columns is None or len(columns.dims) > 1:
        call.freeze([plane], FIXED_KERNEL)
        return
    call.unite(plane.ids.reshape(-1), columns.ids.reshape(-1))
    call.log.role(columns.leaf, "in")
    call.read(plane)
    frame, known = call.tracer.frame, {(count.module, count.index) for count in call.log.attributes}
    if isinstance(frame.module, _ConvNd) and at is not None and (frame.name, at - 2) not in known:
        call.log.attributes.append(AttributeCount(frame.name, "kernel_size", at - 2, columns.ids.reshape(-1)))


def _passing(
    call: Call, planes: Sequence[Plane], bias: Tensor | None, image: Mapping[int, str], dim: int
) -> list[Plane]:
    """Keep what varies from sample to sample; freeze what varies along the image, where the kernel mixes it."""
    kept, added = [], bias_value(call, bias)
    for plane in planes:
        if any(axis > dim and image.get(axis - dim + 1) != "alone" for axis in plane.dims):
            call.freeze([plane], "varies within the image")
            continue
        shifted = added is None or bool(added.any())
        zero = None if plane.value is None or shifted else torch.where(plane.value == 0, 0.0, torch.nan)
        kept.append(plane.but(value=zero, origin=None, leaf=None))
    return kept


def _ids(call: Call, weight: Tensor, dim: int) -> Tensor | None:
    plane = call.info(weight).along(dim)
    if plane is None:
        return None
    if len(plane.dims) > 1:
        call.freeze([plane], "a weight that mixes its dimensions")
    return plane.ids.narrow(1 - dim, 0, 1).reshape(-1) if len(plane.dims) == 1 else None


def _grouped(call: Call, inputs: Plane | None, weight: Tensor, groups: int, transposed: bool) -> Plane | None:
    in_dim, out_dim = (0, 1) if transposed else (1, 0)
    reads = _ids(call, weight, in_dim)
    if inputs is not None and reads is None:
        call.freeze([inputs], "the weight has a fixed size")
    elif inputs is None and reads is not None:
        call.log.freeze(reads, f"{call.place}: {FIXED}")
    elif inputs is not None and reads is not None:
        # A grouped weight has one row of inputs for all groups: input i of every group is the same channel to it.
        call.unite(inputs.ids.reshape(groups, -1), reads.reshape(1, -1))
    made = _ids(call, weight, out_dim)
    if made is None:
        return None
    if groups > 1:
        # Equal groups must stay equal: the same position of each goes together.
        call.unite(made.reshape(groups, -1), made.reshape(groups, -1)[:1])
    return Plane(made)


def _is_depthwise(inputs: Plane | None, groups: int) -> bool:
    return inputs is not None and 1 < groups == inputs.ids.numel()


def _depthwise(call: Call, inputs: Plane | None, weight: Tensor, transposed: bool) -> Plane | None:
    made = _ids(call, weight, 0)
    if made is None and inputs is not None and (own_shape(weight)[0] == 1 or call.info(weight).uniform):
        # One filter (a blur, another sampling rate) for as many channels as there are.
        each = weight.shape[1] if transposed else weight.shape[0] // len(inputs.ids)
        return Plane(inputs.ids.repeat_interleave(each), sources=inputs.sources)
    if made is None or inputs is None:
        call.freeze([inputs] if inputs is not None else [], "the weight has a fixed size")
        if made is not None:
            call.log.freeze(made, f"{call.place}: {FIXED}")
        return None if made is None else Plane(made)
    if transposed:
        per = weight.shape[1]
        # Output k of channel c is c * per + k: channels go with all their outputs, and the number of outputs each
        # stays.
        call.unite(made, inputs.ids)
        if (extra := _ids(call, weight, 1)) is not None:
            call.log.freeze(extra, f"{call.place}: the outputs of one group")
        return Plane(made.repeat_interleave(per), sources=inputs.sources)
    # With a multiplier each input makes several neighbouring outputs, which go together: groups follows in_channels.
    call.unite(made.reshape(len(inputs.ids), -1), inputs.ids.reshape(-1, 1))
    return Plane(made, sources=inputs.sources)


def _transposed_groups(call: Call, inputs: Plane | None, weight: Tensor, groups: int) -> Plane | None:
    reads, made = _ids(call, weight, 0), _ids(call, weight, 1)
    if inputs is None and reads is not None:
        call.log.freeze(reads, f"{call.place}: {FIXED}")
    elif inputs is not None and reads is not None:
        call.unite(inputs.ids, reads)
        call.unite(reads.reshape(groups, -1), reads.reshape(groups, -1)[:1])
    return None if made is None else Plane(made.repeat(groups))


def _log_layer(
    call: Call, x: Tensor, weight: Tensor, transposed: bool, groups: int, inputs: Plane | None, made: Plane
) -> LayerCall | None:
    known = call.info(weight).weight
    if known is None:
        return None
    depthwise = _is_depthwise(inputs, groups)
    out = call.outputs()[0]
    image = call.shapes[0] if transposed else tuple(out.shape)
    channels = x.shape[1] if transposed else made.ids.numel()
    in_dim, out_dim = (0, 1) if transposed and not depthwise else (1, 0)
    # Multiply-adds of a weight element: each is used once a position of the output (of the input if transposed).
    positions = numel(image) / channels / call.log.batch
    read = inputs.ids if inputs is not None else torch.zeros(0, dtype=torch.int64)
    entry = LayerCall(known[0], in_dim, out_dim, groups, positions, read, made.ids.reshape(-1), depthwise)
    call.log.role(leaf_along(call.info(weight), out_dim), "out")
    call.log.role(leaf_along(call.info(weight), in_dim), "in")
    call.log.layers.append(entry)
    return entry


def _labelled(call: Call, made: Plane, entry: LayerCall | None, inputs: Plane | None, bias: Tensor | None) -> Plane:
    """Say whose output this is: a depthwise layer passes its input's sources on."""
    if entry is None:
        return made
    index = len(call.log.layers) - 1
    if entry.depthwise and inputs is not None:
        # Masks on filters of the layer before have to cover the depthwise filters too, or their bias revives the
        # channel.
        chain(call, inputs, (entry.weight, 0), (entry.bias, 0) if entry.bias else None)
        return made.but(origin=index, sources=inputs.sources or frozenset({index}))
    return made.but(origin=index, sources=frozenset({index}))


def _value(
    call: Call, weight: Tensor, inputs: Plane | None, groups: int, bias: Tensor | None, kind: tuple[bool, bool]
) -> Tensor | None:
    real = call.weight(weight)
    transposed, padded = kind
    if real is None:
        return _derived(call, weight, inputs, groups, bias, transposed)
    known = None if inputs is None else inputs.value
    if transposed:  # (inputs, outputs a group, ...) -> (outputs, inputs a group, ...), as plain ones have it
        real = real.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return output_value(call, real, known, groups, bias, padded)


def _derived(
    call: Call, weight: Tensor, inputs: Plane | None, groups: int, bias: Tensor | None, transposed: bool
) -> Tensor | None:
    """Find the filters of a computed weight that are known to be 0, or (depthwise) whose input is 0."""
    known, depthwise = bias_value(call, bias), _is_depthwise(inputs, groups)
    if known is None or (transposed and groups > 1 and not depthwise):
        return None
    # Weights that are computed in the forward pass (weight norm, standardised, fused) have no stored values, but the
    # operations on them carry the zeros along.
    dim, each = (1, 1) if transposed else (0, 1)
    if transposed and depthwise:  # a filter lies along the inputs and makes several outputs
        dim, each = 0, weight.shape[1]
    zero = torch.zeros(weight.shape[dim] * each, dtype=torch.bool)
    plane = next((p for p in call.planes(weight) if p.dims == (dim,)), None)
    if plane is not None and plane.value is not None:
        zero |= (plane.value.reshape(-1) == 0).repeat_interleave(each)
    if depthwise and inputs is not None and inputs.value is not None:
        zero |= (inputs.value.reshape(-1) == 0).repeat_interleave(len(zero) // groups)
    return torch.where(zero, 0.0, torch.nan).double() + known if bool(zero.any()) else None


def _read(call: Call, inputs: Plane | None, entry: LayerCall | None, padded: bool) -> None:
    """Note the sum over the inputs."""
    if inputs is None:
        return
    value = None if inputs.value is None else inputs.value.reshape(-1)
    layer = None if entry is None else len(call.log.layers) - 1
    call.log.read(Read(inputs.ids.reshape(-1), value, layer, not padded))
