"""A quick rehearsal that looks at shapes only, for models that never take channels by number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..running.fast_meta import execute
from ..tracing.entries import Made, numbers_in
from ..tracing.log import TraceLog

aten = torch.ops.aten
NAMES = (
    "slice select split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unbind index index_select gather"
    " narrow constant_pad_nd as_strided roll flip repeat"
)
BY_NUMBER = {getattr(aten, name) for name in NAMES.split()}


def takes_by_number(log: TraceLog) -> bool:
    """Return whether an operation could take the wrong channels and still give the right shape."""
    if log.splits or log.counts:
        return True
    return any(getattr(operation.func, "overloadpacket", None) in (*BY_NUMBER, None) for operation in log.operations)


class ShapeRun(TorchDispatchMode):
    """Carries a thinned copy's operations out: the same ones as in `sequence`, with the shapes that are left?"""

    def __init__(self, sequence: list[tuple[Any, Made, tuple[float, ...]]], labels: Tensor, dead: Tensor) -> None:
        super().__init__()
        self.sequence = sequence
        self.gone = dead[labels]
        self.step = 0
        self.fits = True
        self._left: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Carry an operation out and compare."""
        out = execute(func, args, kwargs or {})
        if self.step >= len(self.sequence) or self.sequence[self.step][0] is not func:
            self.fits = False
        elif self.fits:
            _, made, numbers = self.sequence[self.step]
            same = not any(planes for _, planes in made) or numbers == numbers_in(args, kwargs or {})
            self.fits = same and self._agrees(out, made)
        self.step += 1
        return out

    def _agrees(self, out: Any, made: Made) -> bool:
        tensors = [t for t in (out if isinstance(out, (tuple, list)) else (out,)) if isinstance(t, Tensor)]
        for number, (tensor, (shape, planes)) in enumerate(zip(tensors, made, strict=False)):
            # By-products (indices of a maximum, statistics) have no channels to compare.
            if number and not planes:
                continue
            expected = list(shape)
            for plane in planes:
                dims = plane.dims
                # Of a plane over several dimensions (heads, width) counts alone do not tell along which channels went.
                if len(dims) != 1:
                    return False
                expected[dims[0]] = self._count(plane.ids)
            if list(tensor.shape) != expected:
                return False
        return True

    def _count(self, ids: Tensor) -> int:
        if id(ids) not in self._left:
            # Ids are shared by the planes of many operations, and held by the log: their identity is a key.
            self._left[id(ids)] = ids.numel() - int(self.gone[ids].sum())
        return self._left[id(ids)]
