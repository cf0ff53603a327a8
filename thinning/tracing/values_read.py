"""Which numbers that a model's code reads depend on its weights: a removal of channels may change those alone."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..running.copies import named_tensors

READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default}
WEIGHED = "_potstill_depends_on_weights"


class ValuesRead:
    """Follows what is computed from weights; `differ` once the code has read a number of it.

    From then on the path may differ because values do, not because sizes do. Without `computes` (on the meta device)
    only tensors from elsewhere have numbers.
    """

    def __init__(self, model: nn.Module, computes: bool) -> None:
        self.computes = computes
        self.differ = False
        for tensor in named_tensors(model).values() if computes else ():
            if tensor.is_floating_point() or tensor.is_complex():  # tables of positions and the like stay as they are
                setattr(tensor, WEIGHED, True)

    def follow(self, given: Iterable[Tensor], made: Iterable[Tensor]) -> None:
        """Note an operation."""
        if self.computes and any(hasattr(tensor, WEIGHED) for tensor in given):
            for tensor in made:
                setattr(tensor, WEIGHED, True)

    def read(self, *tensors: Tensor) -> None:
        """Note that the code reads numbers: `.item()`, `if x.sum() > 0`, `.tolist()`."""
        self.differ = self.differ or any(hasattr(tensor, WEIGHED) for tensor in tensors)
