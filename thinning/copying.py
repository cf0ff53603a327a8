"""Copies of a model that share or need no memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def _twin(tensor: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    made = change(tensor.detach())
    return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made


def copied(model: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of the model whose parameters and buffers are `change(tensor)`; ties stay ties."""
    memo: dict[int, Any] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        if id(tensor) not in memo:
            memo[id(tensor)] = _twin(tensor, change)
    return copy.deepcopy(model, memo)


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy without any memory: shapes only."""
    return copied(model, lambda tensor: torch.empty_like(tensor, device="meta"))


def shared_copy(model: nn.Module) -> nn.Module:
    """A copy that shares the memory of parameters and buffers; for models whose forward looks at values."""
    return copied(model, lambda tensor: tensor)


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by their first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
