"""Pooling, resizing and sampling: each channel by itself."""

from __future__ import annotations

import torch

from ..call import Call
from ..labels import Plane
from ..registry import operations, rule
from .elementwise import combine

aten = torch.ops.aten


SPATIAL = {"1d": 1, "2d": 2, "3d": 3}
SCALES = ("scales_d", "scales_h", "scales_w")


def _spatial(call: Call) -> int:
    return next((n for text, n in SPATIAL.items() if text in call.name), 2)


def _mixed(call: Call) -> set[int]:
    """Return the dimensions along which places are combined with their neighbours, or others are chosen."""
    old, new, count = call.shapes[0], call.outputs()[0].shape, _spatial(call)
    dims = range(len(old) - count, len(old))
    if "upsample" in call.name:  # with a scale of its own it reads between the places even where they stay as many
        names = SCALES[-count:] if count > 1 else ("scales",)
        scales = call.named("scale_factors") or [call.named(name) for name in names]
        alone = [scale in (None, 1) for scale in scales]
    else:
        kernel = [1] if "adaptive" in call.name else call.named("kernel_size", [0])
        alone = [size == 1 for size in (kernel * count if len(kernel) == 1 else kernel)]
    return {dim for dim, one in zip(dims, alone, strict=True) if not one or old[dim] != new[dim]}


def _pass(call: Call, keeps_constants: bool) -> None:
    planes: list[Plane] = []
    mixed = _mixed(call)
    for plane in call.planes(call.args[0]):
        # Positions that are channels (a token mixer) are averaged with their neighbours.
        if mixed & set(plane.dims):
            call.freeze([plane], "varies along a pooled dimension")
            continue
        value = plane.value
        if value is not None and not keeps_constants:
            value = torch.where(value == 0, 0.0, torch.nan)
        planes.append(plane.but(value=value, origin=None))
    out, *indices = call.outputs()
    call.emit(planes, out)
    for positions in indices:
        call.emit([plane.but(value=None) for plane in planes], positions)


EXACT = [
    f"{kind}{n}d"
    for kind in ["max_pool", "adaptive_avg_pool", "adaptive_max_pool", "upsample_nearest", "_upsample_nearest_exact"]
    for n in (1, 2, 3)
]
OTHERS = (
    "max_pool2d_with_indices max_pool3d_with_indices mkldnn_max_pool2d _adaptive_avg_pool2d _adaptive_avg_pool3d"
    " fractional_max_pool2d fractional_max_pool3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d"
    " _upsample_bilinear2d_aa"
)


@rule(*operations(" ".join(EXACT)), *operations(OTHERS))
def pool(call: Call) -> None:
    """Keep known values: the mean or maximum of equal numbers is that number."""
    _pass(call, keeps_constants=True)


@rule(*operations("max_unpool2d max_unpool3d"))
def unpool(call: Call) -> None:
    """Unite each channel with the positions of its own maxima."""
    pairs = combine(call, call.infos[:2], call.shapes[:2], call.shapes[0])
    call.emit(
        plane.but(value=None if plane.value is None else torch.where(plane.value == 0, 0.0, torch.nan))
        for plane in (group[0].but(leaf=None, origin=None) for group in pairs)
    )


@rule(*operations("avg_pool1d avg_pool2d avg_pool3d upsample_bicubic2d _upsample_bicubic2d_aa"))
@rule(*operations("grid_sampler_2d grid_sampler_3d grid_sampler"), "torchvision::roi_align", "torchvision::roi_pool")
def padded(call: Call) -> None:
    """Keep zeros alone: others may come in at the border."""
    _pass(call, keeps_constants=False)
