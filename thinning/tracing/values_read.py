"""Which numbers that a model's code reads depend on its weights: a removal of channels may change those alone."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from ..running.copies import named_tensors

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

    def read(self, tensor: Tensor) -> None:
        """Note that the code reads a number: `.item()`, `if x.sum() > 0`."""
        self.differ = self.differ or hasattr(tensor, WEIGHED)
