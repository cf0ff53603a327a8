"""Complex numbers: made of pairs of channels, as rotary embeddings turn them, or of spectra."""

from __future__ import annotations

import torch

from ..call import Call
from ..labels import Plane
from ..registry import rule

aten = torch.ops.aten


@rule(aten.view_as_complex)
def pairs(call: Call) -> None:
    """Make one channel of the two that are real and imaginary part."""
    last = len(call.shapes[0]) - 1
    united = [call.collapse(plane, last, "real and imaginary parts") for plane in call.planes(call.args[0])]
    call.emit([_zeros(plane).map(lambda t: t.squeeze(last)) for plane in united if plane is not None])


@rule(aten.view_as_real)
def parts(call: Call) -> None:
    """Let real and imaginary part be one channel."""
    call.emit([_zeros(plane).map(lambda t: t.unsqueeze(-1)) for plane in call.planes(call.args[0])])


@rule(aten._conj)
def conjugate(call: Call) -> None:
    """Let conjugate numbers be of the same channels."""
    call.emit([_zeros(plane) for plane in call.planes(call.args[0])])


def _zeros(plane: Plane) -> Plane:
    """Return the plane with those values that are the same in either form: zeros."""
    value = None if plane.value is None else torch.where(plane.value == 0, 0.0, torch.nan)
    return plane.but(value=value, leaf=None, origin=None)
