"""Connected components of integers, vectorised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .running.default_device import on_cpu


def components(count: int, pairs: Sequence[tuple[Tensor, Tensor]], root: Tensor | None = None) -> Tensor:
    """Return the smallest member of the component of each integer in 0..count-1, given pairs of equally long tensors.

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
        # Pairs that are united already need not be looked at again.
        left, right, a, b = left[differ], right[differ], a[differ], b[differ]
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        # Hook the larger root to the smallest of its neighbours, then shorten all paths to length 1.
        root.scatter_reduce_(0, high, low, "amin")
        while not torch.equal(jumped := root[root], root):
            root = jumped


@on_cpu
def class_of_label(uses: Sequence[Tensor], *status: Tensor) -> Tensor:
    """Return the number of each label's class: the same for labels with the same uses, as often, and status.

    `uses` are the labels of the indices of each parameter dimension; `status` are tensors over all labels.
    """
    generator = torch.Generator().manual_seed(0)
    # A random number for each use; a label's signature is the sum of those of its uses. Two different sets of uses
    # collide with probability 2**-62 a pair, and the seed is fixed, so that results repeat.
    numbers = torch.randint(-(2**62), 2**62, (len(uses) + len(status),), generator=generator, device="cpu")
    signature = torch.zeros_like(status[0])
    for number, state in zip(numbers[len(uses) :], status, strict=True):
        signature += number * state
    if uses:
        counts = torch.repeat_interleave(numbers[: len(uses)], torch.tensor([len(labels) for labels in uses]))
        signature.index_add_(0, torch.cat(list(uses)), counts)
    return signature.unique(return_inverse=True)[1]


def members(group: Tensor) -> list[Tensor]:
    """Return the labels (from 1) of each class; a class of label 0 alone is empty."""
    # One sort and one split, instead of a comparison with every class: networks have thousands of these.
    order = group[1:].argsort(stable=True) + 1
    return list(order.split(group[1:].bincount(minlength=int(group.max()) + 1).tolist()))
