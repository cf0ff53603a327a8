"""Penalties of many parameters, whose gradients are added in place when the backward pass ends.

An ordinary term of the loss makes a gradient tensor for each parameter, which autograd then adds to that of the rest of
the network; where steps are short, that shows. Here the loss gets the penalties' values only, and a hook. When the
backward pass ends it adds to each finished `.grad` in place, scaled like any gradient by what came from above (loss
scaling, division for accumulation).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial, reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from ..parts.backward_end import after_backward_pass
from ..processes.shards import parts

_KNOWN = "_penalties"
"""Attribute of a loss: the penalties that it has already."""


class Term(ABC):
    """A function of some parameters that knows its gradient."""

    @abstractmethod
    def value(self, tensors: list[Tensor]) -> tuple[Tensor, Any]:
        """Return the value (a scalar), and what `add_gradients` needs of the computation."""

    @abstractmethod
    def add_gradients(self, tensors: list[Tensor], grads: list[Tensor], kept: Any, scale: Tensor) -> None:
        """Add the gradient for each tensor, times `scale` (a scalar), to `grads`."""


class Penalty(NamedTuple):
    """A term and the parameters that it is of."""

    term: Term
    tensors: list[Tensor]


def total(penalties: Iterable[Penalty]) -> Tensor:
    """Return the value of some penalties, without gradient."""
    with torch.no_grad():
        return torch.stack([term.value(tensors)[0] for term, tensors in penalties]).sum()


def add_penalties(loss: Tensor, penalties: Iterable[Penalty]) -> tuple[Tensor, Tensor]:
    """Return the loss with penalties of parameters (leaves of the graph), and their value.

    `backward` of the returned loss adds their gradients too; `torch.autograd.grad` does not see them. The gradients are
    added on top of what data parallel classes have averaged: every process adds the same.
    """
    if not isinstance(loss, Tensor):
        raise TypeError(f"before_backward_pass takes the loss as a tensor, not a {type(loss).__name__}")
    if not loss.requires_grad:
        loss = loss.detach().requires_grad_()  # else it has no backward pass
    values, pending = [], []
    with torch.no_grad():
        for term, tensors in penalties:
            value, kept = term.value(tensors)
            values.append(value)
            pending.append((term, tensors, kept))
        value = values[0] if len(values) == 1 else torch.stack(values).sum()
        known = getattr(loss, _KNOWN, None)
        if known is not None:
            known += pending  # this loss is ours: its hook takes them along, and its value is nobody else's
            return loss.add_(value), value
    # Not in place: the loop may still hold the loss without penalties, to log it.
    loss = loss + value
    loss.register_hook(partial(_when_done, pending))
    setattr(loss, _KNOWN, pending)
    return loss, value


def _when_done(pending: Iterable[tuple[Term, list[Tensor], Any]], scale: Tensor) -> None:
    """Add the gradients when the backward pass is over."""
    # The gradient of the loss by itself is 1, or what a loss scaler or a division for accumulation made of it:
    # penalties must be scaled alike.
    total = scale.sum() if scale.dim() else scale  # a loss for each example: the penalty is part of all
    after_backward_pass(partial(_add, pending, total), after_readers=True)


def _add(pending: Iterable[tuple[Term, list[Tensor], Any]], scale: Tensor) -> None:
    with torch.no_grad():
        for term, tensors, kept in pending:
            term.add_gradients(parts(tensors), parts(map(_gradient, tensors)), kept, scale)


def _gradient(tensor: Tensor) -> Tensor:
    grad = tensor.grad
    if grad is not None and grad.layout != torch.strided:  # of an embedding with `sparse`: the sum is dense
        tensor.grad = grad = grad.to_dense()
    if grad is None:
        grad = torch.zeros_like(tensor)
        if tensor.requires_grad:  # else it is frozen, and the gradient goes nowhere
            tensor.grad = grad
    return grad


def wide(tensors: Iterable[Tensor]) -> torch.dtype:
    """Return the type to sum in: that of the tensors, but float32 for half precision, where sums end at 65504."""
    return reduce(torch.promote_types, {tensor.dtype for tensor in tensors}, torch.float32)


def flatten(tensors: list[Tensor]) -> Tensor:
    """Return all elements of some tensors in one vector."""
    return _flatten_dense_tensors(tensors)


def unflatten(vector: Tensor, like: list[Tensor]) -> list[Tensor]:
    """Return views of a vector in the shapes of some tensors."""
    return list(_unflatten_dense_tensors(vector, like))
