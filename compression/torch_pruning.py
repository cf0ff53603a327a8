"""Networks that `torch.nn.utils.prune` or `torch.ao.pruning` pruned: their weights made plain, their masks kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from .scheduler import CompressionScheduler

OWNER = "torch.nn.utils.prune"
ORIGINAL, MASK = "_orig", "_mask"


def adopt_torch_pruning(model: nn.Module, example_inputs: Any = None) -> CompressionScheduler:
    """Return a scheduler that keeps zero what torch had pruned; the model, in place, has plain weights again.

    Hooks of `torch.nn.utils.prune` and masks of `torch.ao.pruning` go, the parameters stay the same objects, so that an
    optimizer of before fits. Other parametrizations stay. Thin with `scheduler.thin()`.

    Args:
        model: the pruned network.
        example_inputs: what it is called with: needed for thinning.

    Raises:
        ValueError: nothing of the network is pruned that way.
    """
    masks = {**dict(_of_hooks(model)), **dict(_of_parametrizations(model))}
    if not masks:
        raise ValueError("no parameter has a mask of torch.nn.utils.prune or torch.ao.pruning")
    scheduler = CompressionScheduler(model, example_inputs)
    for name, mask in masks.items():
        scheduler.masks.set(OWNER, name, mask)
    return scheduler


def plain_state_dict(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a state dict without `…_orig` and `…_mask`, and the masks by parameter; other state dicts as they are.

    Raises:
        ValueError: a mask has another shape than its weight.
    """
    plain, masks = dict(state), dict[str, Tensor]()
    for key in state:
        name = key.removesuffix(ORIGINAL)
        if name == key or name + MASK not in state or name in state:
            continue
        original, mask = plain.pop(key), plain.pop(name + MASK)
        if not isinstance(mask, Tensor) or not isinstance(original, Tensor) or mask.shape != original.shape:
            raise ValueError(f"{name}{MASK} is no mask of {key}")
        plain[name], masks[name] = original * mask, mask != 0
    return plain, masks


def _of_hooks(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, module in model.named_modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                name: str = hook._tensor_name
                mask = module.get_buffer(name + MASK).detach().clone()
                prune.remove(module, name)
                yield _full(path, name), mask


def _of_parametrizations(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, module in list(model.named_modules()):
        for name, entries in list(getattr(module, "parametrizations", {}).items()):
            shape = getattr(module, name).shape
            found = [mask for entry in entries if isinstance(mask := getattr(entry, "mask", None), Tensor)]
            if len(found) == len(entries) and all(mask.shape == shape for mask in found):
                mask = torch.stack([mask.detach() != 0 for mask in found]).all(0)
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
                yield _full(path, name), mask


def _full(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
