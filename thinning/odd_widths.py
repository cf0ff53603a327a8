"""Odd widths in channels-last layout: one kernel must not be used, and single channels must not end the layout."""

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


def fit_layouts(model: nn.Module) -> None:
    """Let convolutions that channels-last layout is not safe for compute without it, and single channels keep it."""
    for module in model.modules():
        if at_risk(module) and contiguous not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(contiguous)
        if any(map(makes_one_channel, module.children())):
            for child in module.children():
                if loses_layout(child) and as_given not in child._forward_hooks.values():
                    child.register_forward_hook(as_given)


def makes_one_channel(module: nn.Module) -> bool:
    """Return whether a module is a convolution or a norm of images that puts out a single channel."""
    made = {nn.Conv2d: "out_channels", nn.ConvTranspose2d: "out_channels", nn.BatchNorm2d: "num_features"}
    return any(isinstance(module, kind) and getattr(module, name) == 1 for kind, name in made.items())


def loses_layout(module: nn.Module) -> bool:
    """Return whether a module gives single channels the contiguous layout: torch's norms, activations and their like.

    Convolutions do not: they follow their input.
    """
    room = type(module).__module__.removeprefix("torch.nn.modules.")
    plain = room in ("activation", "pooling", "dropout", "padding", "upsampling")
    # Of a pool that returns indices too the output is no single tensor, and no hook of one is scripted.
    single = not getattr(module, "return_indices", False) and next(module.parameters(), None) is None
    return (plain and single) or (isinstance(module, nn.BatchNorm2d) and module.num_features == 1)


def as_given(self: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """Give images of one channel the strides of channels-last layout where the input has them.

    One channel lies in memory in both layouts alike, and torch's norms and activations call it contiguous: what is
    concatenated with it becomes contiguous too, and all that follows, up to a convolution with a larger kernel.
    """
    if len(inputs) == 0:  # called by keyword
        return output
    images = inputs[0]
    if output.dim() != 4 or output.shape[1] != 1 or output.stride(1) == 1 or images.dim() != 4 or images.stride(1) != 1:
        return output
    number, _, height, width = output.shape
    return output.reshape(number, height, width, 1).permute(0, 3, 1, 2)


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
