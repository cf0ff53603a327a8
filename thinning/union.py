"""Connected components of integers, vectorised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def components(count: int, pairs: Sequence[tuple[Tensor, Tensor]], root: Tensor | None = None) -> Tensor:
    """The smallest member of the component of each integer in 0..count-1, given pairs of equal-length integer tensors.

    Hooking to the smaller root and pointer jumping: a few vector operations for each halving of the longest chain.
    `root` is what other pairs gave before; it stays as it is.
    """
    root = torch.arange(count) if root is None else root.clone()
    if not pairs:
        return root
    left = torch.cat([a for a, _ in pairs])
    right = torch.cat([b for _, b in pairs])
    while True:
        a, b = root[left], root[right]
        differ = a != b
        if not bool(differ.any()):
            return root
        left, right, a, b = left[differ], right[differ], a[differ], b[differ]
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        root.scatter_reduce_(0, high, low, "amin")
        while not torch.equal(jumped := root[root], root):
            root = jumped
