"""Make any network a test of thinning: sensitive statistics, and dead channels in every coupled class."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .graph import ChannelGraph
from .running.default_device import on_cpu
from .running.inputs import run


@torch.no_grad()
@on_cpu
def make_sensitive(model: nn.Module, example_inputs: Any, seed: int = 0) -> nn.Module:
    """Draw affine parameters, and gather BatchNorm statistics from the inputs and perturb them; in place.

    Purely random statistics make a deep network insensitive to its input and hide errors. Parameters that are all
    zero (heads that start at zero) become small random numbers. Returns the model in eval mode.
    """
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if not bool(parameter.any()):
            parameter.copy_(torch.randn(parameter.shape, generator=draw, device="cpu").to(parameter) * 0.05)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for module in model.modules():
        if (
            isinstance(module, (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm))
            and module.weight is not None
        ):
            module.weight.copy_(torch.rand(module.weight.shape, generator=draw, device="cpu") + 0.5)
            if module.bias is not None:
                module.bias.copy_(torch.randn(module.bias.shape, generator=draw, device="cpu") * 0.2)
    norms = [norm for norm in norms if norm.running_mean is not None and norm.running_var is not None]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.momentum = 1.0
        norm.train()  # they alone: in training some models want labels
    if norms:
        run(model, example_inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        mean, var = norm.running_mean, norm.running_var
        if mean is not None and var is not None:
            mean += torch.randn(mean.shape, generator=draw, device="cpu").to(mean) * 0.05 * var.sqrt()
            var *= torch.rand(var.shape, generator=draw, device="cpu").to(var) * 0.4 + 0.8
    return model.eval()


@torch.no_grad()
@on_cpu
def zero_channels(
    model: nn.Module, graph: ChannelGraph, fraction: float = 0.3, seed: int = 0, inexact: bool = False
) -> int:
    """Zero `fraction` of the removable channels of every class at their producers; return how many channels.

    With `inexact` also of the classes that a LayerNorm or GroupNorm averages over.

    Weights, biases, norm weights and norm biases: everything that makes the channel.
    """
    draw = torch.Generator().manual_seed(seed)
    dead = torch.zeros(graph.count + 1, dtype=torch.bool)
    for group in graph.classes():
        if group.status == "removable" or (inexact and group.status == "inexact"):
            chosen = torch.randperm(group.size, generator=draw, device="cpu")[: int(group.size * fraction)]
            dead[group.channels[chosen]] = True
    parameters, zeroed = dict(model.named_parameters()), torch.zeros_like(dead)
    for use in graph.uses:
        if use.role in ("out", "scale", "shift") and use.name in parameters:
            parameter = parameters[use.name]
            parameter.index_fill_(use.dim, dead[use.channels].nonzero().flatten().to(parameter.device), 0)
            zeroed[use.channels] = dead[use.channels]
    return int(zeroed.sum())
