"""Pruners that watch gradients need parameters that have some."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..problems import Complaint


def after_backward(name: str, parameter: nn.Parameter, hook: Callable[[Tensor], None]) -> RemovableHandle:
    """Call the hook with the parameter whenever its gradient is complete.

    Raises:
        ValueError: it is frozen.
    """
    problem = _frozen(name, parameter)
    if problem:
        raise ValueError(problem)
    return parameter.register_post_accumulate_grad_hook(torch.no_grad()(hook))


def without_gradients(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    """Those of `weights` that are frozen."""
    model: nn.Module | None = getattr(shapes, "model", None)
    if model is None:
        return
    for name in args["weights"]:
        problem = _frozen(name, model.get_parameter(name))
        if problem:
            yield f"weights.{name}", problem


def _frozen(name: str, parameter: nn.Parameter) -> str | None:
    return None if parameter.requires_grad else f"{name} is frozen (requires_grad is False): it gets no gradient"
