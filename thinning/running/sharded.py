"""Networks whose parameters several processes share (`fully_shard`): they can be traced, not thinned."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ThinningError

SHARDED = (
    "'{}' is sharded over processes (fully_shard): thin before sharding, or gather the weights on one process"
    " (get_model_state_dict with full_state_dict=True), load them into a plain model and thin that"
)


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor."""
    return hasattr(tensor, "device_mesh")


def refuse_sharded(model: nn.Module) -> None:
    """Check that all parameters are whole.

    Raises:
        ThinningError: one is sharded; says what to do.
    """
    for name, parameter in model.named_parameters():
        if is_sharded(parameter):
            raise ThinningError(SHARDED.format(name))


def whole_shape(tensor: Tensor) -> Tensor:
    """Return the tensor, or of a sharded one a tensor of the whole's shape without memory."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") if is_sharded(tensor) else tensor


@contextmanager
def unsharded_classes(model: nn.Module) -> Iterator[dict[int, Any]]:
    """Give modules, meanwhile, the classes that `fully_shard` found, which can be copied.

    Gives:
        by id, what copies of them have instead of hooks that gather parameters.
    """
    changed = [module for module in model.modules() if hasattr(module, "unshard") and hasattr(module, "reshard")]
    classes = [type(module) for module in changed]
    try:
        for module, kind in zip(changed, classes, strict=True):
            module.__class__ = kind.__mro__[2]  # FSDPLinear, FSDPModule, Linear
        yield {id(hooks): kept for module in changed for hooks, kept in _hooks(module)}
    finally:
        for module, kind in zip(changed, classes, strict=True):
            module.__class__ = kind


def _hooks(module: nn.Module) -> list[tuple[Any, OrderedDict[Any, Any]]]:
    """Return a module's hooks and what a copy has of them, less what `fully_shard` keeps and those on state dicts."""
    kept = [(hooks, _without_own(hooks)) for hooks in (module._forward_pre_hooks, module._forward_hooks)]
    left_out = [value for name, value in vars(module).items() if "state" in name and isinstance(value, dict)]
    return [*kept, *((value, OrderedDict()) for value in left_out)]


def _without_own(hooks: dict[int, Any]) -> OrderedDict[int, Any]:
    owner = {number: type(getattr(hook, "__self__", hook)).__module__ for number, hook in hooks.items()}
    return OrderedDict((n, hook) for n, hook in hooks.items() if not owner[n].startswith("torch.distributed"))
