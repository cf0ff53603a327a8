"""Penalties of many parameters as one node of the autograd graph, whose gradients are added in place.

An ordinary term of the loss makes a gradient tensor for each parameter, which autograd then adds to that of the rest of
the network; where steps are short, that shows. All penalties of a loss share one node here. When the backward pass ends
it adds to each finished `.grad` in place, scaled like any gradient by what came from above (loss scaling, division for
accumulation).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.autograd import Function, Variable


class Term(ABC):
    """A function of some parameters that knows its gradient."""

    @abstractmethod
    def value(self, tensors: list[Tensor]) -> tuple[Tensor, Any]:
        """The value (a scalar), and what `add_gradients` needs of the computation."""

    @abstractmethod
    def add_gradients(self, tensors: list[Tensor], grads: list[Tensor], kept: Any, scale: Tensor) -> None:
        """Add the gradient for each tensor, times `scale` (a scalar), to `grads`."""


class Penalty(NamedTuple):
    """A term and the parameters that it is of."""

    term: Term
    tensors: list[Tensor]


def total(penalties: Iterable[Penalty]) -> Tensor:
    """The value of some penalties, without gradient."""
    with torch.no_grad():
        return torch.stack([term.value(tensors)[0] for term, tensors in penalties]).sum()


def add_penalties(loss: Tensor, penalties: Iterable[Penalty]) -> tuple[Tensor, Tensor]:
    """The loss with penalties of parameters (leaves of the graph), and their value.

    `backward` of the returned loss adds their gradients too; `torch.autograd.grad` does not see them.
    """
    values, parts = [], []
    with torch.no_grad():
        for term, tensors in penalties:
            value, kept = term.value(tensors)
            values.append(value)
            parts.append((term, tensors, kept))
        value = values[0] if len(values) == 1 else torch.stack(values).sum()
        known = getattr(loss.grad_fn, "penalties", None)
        if known is not None:
            known += parts  # the loss came from here: its node takes them along, and its value is nobody else's
            return loss.add_(value), value
    return _Node.apply(loss, value, parts[0][1][0], parts), value  # a parameter makes it part of a graph


class _Node(Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, value: Tensor, anchor: Tensor, parts: list[Any]) -> Tensor:
        ctx.penalties = parts
        return loss + value

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> Any:
        parts = ctx.penalties
        # private, but what torch's own data parallel classes end their backward passes with
        Variable._execution_engine.queue_callback(lambda: _add(parts, scale))
        return scale, None, None, None


@torch.no_grad()
def _add(parts: Iterable[tuple[Term, list[Tensor], Any]], scale: Tensor) -> None:
    for term, tensors, kept in parts:
        term.add_gradients(tensors, [_gradient(tensor) for tensor in tensors], kept, scale)


def _gradient(tensor: Tensor) -> Tensor:
    grad = tensor.grad
    if grad is None:
        grad = torch.zeros_like(tensor)
        if tensor.requires_grad:  # else it is frozen, and the gradient goes nowhere
            tensor.grad = grad
    return grad


def flatten(tensors: list[Tensor]) -> Tensor:
    """All elements of some tensors in one vector."""
    return _flatten_dense_tensors(tensors)


def unflatten(vector: Tensor, like: list[Tensor]) -> list[Tensor]:
    """Views of a vector in the shapes of some tensors."""
    return list(_unflatten_dense_tensors(vector, like))
