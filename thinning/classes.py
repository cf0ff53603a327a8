"""Groups channels that have the same uses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .places import on_cpu


@on_cpu
def class_of_label(uses: Sequence[Tensor], *status: Tensor) -> Tensor:
    """The number of the class of each label: the same for labels with the same uses, as often, and the same status.

    `uses` are the labels of the indices of each parameter dimension; `status` are tensors over all labels.
    """
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(-(2**62), 2**62, (len(uses) + len(status),), generator=generator, device="cpu")
    signature = torch.zeros_like(status[0])
    for number, state in zip(numbers[len(uses) :], status, strict=True):
        signature += number * state
    if uses:
        counts = torch.repeat_interleave(numbers[: len(uses)], torch.tensor([len(labels) for labels in uses]))
        signature.index_add_(0, torch.cat(list(uses)), counts)
    return signature.unique(return_inverse=True)[1]


def members(group: Tensor) -> list[Tensor]:
    """The labels (from 1) of each class; a class of label 0 alone is empty."""
    order = group[1:].argsort(stable=True) + 1
    return list(order.split(group[1:].bincount(minlength=int(group.max()) + 1).tolist()))
