"""Building a network from its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .info import ModelError, ModelInfo
from .registry import model_factory, model_info
from .timm_models import timm_model
from .torchvision_models import size_arguments, torchvision_model
from .transformers_models import transformers_model


def create_model(
    name: str,
    num_classes: int | None = None,
    in_channels: int | None = None,
    pretrained: bool = False,
    input_size: Sequence[int] | None = None,
    config: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return a freshly initialised network, in training mode, on torch's default device.

    Args:
        name: one of `model_names()`, `timm/NAME`, or `transformers/FOLDER` (an image classifier's folder).
        num_classes: outputs; by default the network's usual number (`model_info(name).num_classes`).
        in_channels: channels of the input images; by default the network's usual number.
        pretrained: load trained weights: ImageNet's of torchvision or timm, those of the folder of transformers.
        input_size: height and width of the images; by default the network's usual ones.
        config: what a network of transformers is built from, where its folder is not to be read.

    Raises:
        ModelError: (a ValueError) unknown name, an impossible size, or weights that do not exist or cannot be fetched.
    """
    info = model_info(name, config)
    channels = info.input_shape[0] if in_channels is None else in_channels
    height, width = info.input_shape[1:] if input_size is None else input_size
    classes = info.num_classes if num_classes is None else num_classes
    return build(replace(info, input_shape=(channels, height, width)), classes, pretrained)


def build(info: ModelInfo, classes: int, pretrained: bool = False) -> nn.Module:
    """Return the network that is described, for images of the shape that is said there.

    Raises:
        ModelError: as `create_model`.
    """
    channels, *size = info.input_shape
    if classes < 1 or channels < 1:
        raise ModelError(f"{info.name}: num_classes and in_channels must be at least 1, not {classes} and {channels}")
    if min(size) < 1:
        raise ModelError(f"{info.name}: images must have a height and a width, not {size[0]} and {size[1]}")
    if info.source == "potstill" and pretrained:
        theirs = "only torchvision's and timm's networks and folders of transformers have them"
        raise ModelError(f"{info.name}: there are no pretrained weights; {theirs}")
    if info.source == "potstill":
        model = model_factory(info.name)(classes, channels)
    elif info.source == "timm":
        model = timm_model(info, classes, pretrained)
    elif info.source == "transformers":
        model = transformers_model(info, classes, pretrained)
    else:
        model = _torchvision(info, classes, pretrained)
    if info.source == "transformers" or info.input_shape[1:] != model_info(info.name).input_shape[1:]:
        _must_run(model, info)
    return model


def _torchvision(info: ModelInfo, classes: int, pretrained: bool) -> nn.Module:
    channels, height, width = info.input_shape
    size = {} if (height, width) == model_info(info.name).input_shape[1:] else size_arguments(info.name, height, width)
    try:
        return torchvision_model(info.name, classes, channels, pretrained, size)
    except OSError as error:
        raise ModelError(str(error)) from error


def _must_run(model: nn.Module, info: ModelInfo) -> None:
    """Run a network once on zeros: many have a size in their code or weights.

    Raises:
        ModelError: it does not run on images of this shape.
    """
    device = next((parameter.device for parameter in model.parameters()), None)
    mode = model.training
    try:
        with torch.no_grad():
            found = model.eval()(torch.zeros(2, *info.input_shape, device=device))
    except Exception as error:  # whatever its code says
        shape, told = "x".join(map(str, info.input_shape)), (str(error).strip().splitlines() or [""])[0][:200]
        raise ModelError(f"{info.name} does not run on images of {shape}: {type(error).__name__}: {told}") from error
    finally:
        model.train(mode)
    if not isinstance(getattr(found, "logits", found), torch.Tensor):
        raise ModelError(f"{info.name} does not return scores of classes")
