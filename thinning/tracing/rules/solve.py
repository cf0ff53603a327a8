"""Systems of equations with a triangular matrix: linear attention with the delta rule solves one a chunk."""

from __future__ import annotations

import torch

from ..call import Call
from ..labels import Plane, TensorInfo
from ..registry import rule
from .elementwise import combine, merge

aten = torch.ops.aten


@rule(aten.linalg_solve_triangular)
def triangular(call: Call) -> None:
    """Follow AX = B: each column of X is made of the same column of B (of XA = B each row), so zeros stay zeros."""
    matrix, given = call.args[:2]
    mixed = -2 if call.named("left", True) else -1
    fixed = [plane for plane in call.planes(matrix) if {matrix.ndim - 1, matrix.ndim - 2} & set(plane.dims)]
    fixed += [plane for plane in call.planes(given) if given.ndim + mixed in plane.dims]
    call.freeze(fixed, "solved over the channels")
    infos, shapes = [], []
    for tensor, shape in ((matrix, (*matrix.shape[:-2], 1, 1)), (given, given.shape)):
        known = call.info(tensor)
        kept = tuple(plane for plane in known.current if plane not in fixed)
        infos.append(TensorInfo(kept, known.storage, known.storage.version))
        shapes.append(shape)
    call.emit(_solved(call, group) for group in combine(call, infos, shapes, call.out.shape))


def _solved(call: Call, group: list[Plane]) -> Plane:
    """Return the plane of the solution: 0 where what is given is 0."""
    values = [call.value_of(plane) for plane in group if plane.operand == 1]
    if not values or values[0] is None:
        return merge(group)
    return merge(group, torch.where(values[0] == 0, 0.0, torch.nan).expand(group[0].ids.shape))
