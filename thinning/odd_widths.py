"""Keep narrow convolutions off a kernel that writes outside of its memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

TOO_NARROW = 8
"""Numbers in a vector register of AVX2: with fewer inputs the kernel's weight gradient ends in a corrupted heap.

Seen with torch 2.14 for 1 to 7 inputs, batches from 2, one thread, channels-last (docs/reliability.md, odd widths).
"""


def at_risk(module: nn.Module) -> bool:
    """Return whether a module is a convolution whose backward pass may corrupt the heap in channels-last layout."""
    if not isinstance(module, nn.Conv2d) or module.groups > 1 or any(size != 1 for size in module.kernel_size):
        return False
    return module.in_channels < TOO_NARROW and any(step > 1 for step in module.stride)


def avoid_broken_kernels(model: nn.Module) -> None:
    """Let convolutions of a width for which channels-last layout is not safe compute in the contiguous one."""
    for module in model.modules():
        if at_risk(module) and contiguous not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(contiguous)


def contiguous(self: Any, inputs: tuple[Tensor]) -> Tensor:
    """Make input and weight contiguous where a weight gradient will be computed on the CPU: torch looks at both."""
    (images,) = inputs
    weight: Tensor = self.weight
    if images.device.type != "cpu" or not (torch.is_grad_enabled() and weight.requires_grad):
        return images
    # Of 1x1 kernels `contiguous` keeps the strides of either layout.
    if not torch.jit.is_scripting() and weight.stride()[2:] != (1, 1):
        weight.data = weight.data.flatten(1).reshape(weight.shape)
    return images.contiguous()
