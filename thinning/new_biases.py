"""Biases that layers without one can be given, to take the constants of channels that go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from .errors import ThinningError


def layers_without_bias(model: nn.Module) -> dict[str, str]:
    """Return the weight of each of torch's layers that has no bias and could have one -> the name of that bias."""
    found = {name: module for name, module in model.named_modules() if _could_have_one(module)}
    return {f"{name}.weight".lstrip("."): f"{name}.bias".lstrip(".") for name in found}


def _could_have_one(module: nn.Module) -> bool:
    known = isinstance(module, (nn.Linear, _ConvNd)) and module._parameters.get("weight") is not None
    return known and "bias" in module._parameters and module._parameters["bias"] is None


def weight_of(bias: str) -> str:
    """Return the name of the weight beside a bias."""
    return f"{bias.removesuffix('bias')}weight"


def outputs_of(layer: Any, shape: Sequence[int]) -> int:
    """Return how many outputs a layer with a weight of this shape has."""
    return shape[1] if getattr(layer, "transposed", False) else shape[0]


def layer_without(model: nn.Module, bias: str) -> Any:
    """Return the layer that gets a bias of this name.

    Raises:
        ThinningError: there is none, or it has a bias.
    """
    try:
        layer = model.get_submodule(bias.rpartition(".")[0])
    except (AttributeError, RuntimeError) as error:
        raise ThinningError(f"the recipe is for another model: {error}") from error
    if not _could_have_one(layer):
        raise ThinningError(f"the recipe adds '{bias}', but that is no convolution or linear layer without a bias")
    return layer


def new_bias(layer: Any, size: int) -> nn.Parameter:
    """Return a bias of zeros, like the layer's weight."""
    weight = layer.weight
    zeros = torch.zeros(size, dtype=weight.dtype, device=weight.device)
    return nn.Parameter(zeros, requires_grad=weight.requires_grad)
