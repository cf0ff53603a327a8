"""Hooks on the modules of a compiled model: torch does not call those that come after its first call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from potstill.thinning import compiled_of

from ..declare.cross_checks import Complaint

REFUSAL = "hooks into modules, which torch.compile leaves out: give the schedule the plain model and compile it later"


def is_compiled(model: nn.Module) -> bool:
    """Return whether `torch.compile` or `Module.compile` made something of the model or a part of it."""
    return compiled_of(model) is not None or any(
        "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


def hooks_left_out(who: str, shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    """Yield what to say of a class that needs hooks, where the model is a compiled one."""
    model: nn.Module | None = getattr(shapes, "model", None)
    if model is not None and is_compiled(model):
        yield "", f"{who} {REFUSAL}"


def refuse_compiled(who: str, model: nn.Module) -> None:
    """Check that hooks are called.

    Raises:
        ValueError: the model is a compiled one.
    """
    if is_compiled(model):
        raise ValueError(f"{who} {REFUSAL}")
