"""Deformable convolutions of torchvision: a convolution that reads each position at an offset."""

from __future__ import annotations

from ..call import Call
from ..registry import rule
from .conv import follow


@rule("torchvision::deform_conv2d")
def deformable(call: Call) -> None:
    """Read the input's channels and make new ones; offsets and masks are of fixed number."""
    x, weight, offset, mask, bias = call.args[:5]
    groups, offset_groups = call.args[-3], call.args[-2]
    for tensor in (offset, mask):
        call.freeze(call.planes(tensor), "offsets and masks, as many as the kernel has positions")
    plane = call.info(x).along(1)
    if plane is not None and offset_groups > 1 and plane.dims == (1,):
        rows = plane.ids.reshape(offset_groups, -1)
        call.unite(rows, rows[:1])
    follow(call, x, weight, bias if bias.numel() else None, groups)
