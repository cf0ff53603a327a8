"""torchvision's classification models by their own names, for any number of classes and input channels."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import nn

# Their truncated-normal initialisation takes 20 s and more on a CPU; torch's default serves as well with BatchNorm.
SLOW_INITIALISATION = frozenset({"googlenet", "inception_v3"})


@cache
def torchvision_names() -> tuple[str, ...]:
    """Return the classification models of the installed torchvision."""
    return tuple(torchvision.models.list_models(module=torchvision.models))


def is_torchvision_name(name: str) -> bool:
    """Return whether torchvision has a classification model of this name."""
    return name in torchvision_names()


def size_arguments(name: str, height: int, width: int) -> dict[str, Any]:
    """Return what tells a network of torchvision's that its images are of another size; most need not be told."""
    if name.startswith("vit_"):
        return {"image_size": height} if height == width else {"image_size": (height, width)}
    return {"input_size": (height, width)} if name.startswith("maxvit") else {}


def torchvision_model(
    name: str, num_classes: int, in_channels: int, pretrained: bool, size: Mapping[str, Any]
) -> nn.Module:
    """Build a torchvision model; with `pretrained`, its default ImageNet weights as far as the shapes allow.

    `size` is what `size_arguments` says. Where the input does not have three channels the first convolution is
    replaced, where pretrained weights are asked for another number of classes the last layers are.

    Raises:
        OSError: the weights can be neither found nor downloaded.
    """
    if not pretrained:
        model = torchvision.models.get_model(name, num_classes=num_classes, **_quick(name), **size)
    else:
        model = _pretrained_model(name, size)
        _replace_heads(model, num_classes)
    if in_channels != 3:
        _replace_first_convolution(model, in_channels, keep_weights=pretrained)
    return model


def _quick(name: str) -> dict[str, Any]:
    return {"init_weights": False} if name in SLOW_INITIALISATION else {}


def _pretrained_model(name: str, size: Mapping[str, Any]) -> nn.Module:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        return torchvision.models.get_model(name, weights=weights, **size)
    except RuntimeError as error:
        raise OSError(f"the pretrained weights of {name} are for images of another size: {error}") from error
    except (URLError, OSError) as error:
        cache_folder = f"{torch.hub.get_dir()}/checkpoints"
        raise OSError(
            f"the pretrained weights of {name} can be neither found in {cache_folder} nor downloaded from "
            f"{weights.url} ({error}); put the file into that folder by hand, or leave out pretrained"
        ) from error


def _replace_heads(model: nn.Module, num_classes: int) -> None:
    """Give every layer that ends in ImageNet's 1000 classes (auxiliary heads too) a fresh one of `num_classes`."""
    if num_classes == 1000:
        return
    for path, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and layer.out_features == 1000:
            _set_module(model, path, nn.Linear(layer.in_features, num_classes, layer.bias is not None))
        elif isinstance(layer, nn.Conv2d) and layer.out_channels == 1000:  # SqueezeNet
            _set_module(model, path, nn.Conv2d(layer.in_channels, num_classes, layer.kernel_size))  # type: ignore[arg-type]


def _replace_first_convolution(model: nn.Module, in_channels: int, keep_weights: bool) -> None:
    """Let the convolution that reads the image read `in_channels` channels.

    Kept weights are summed over the colours and shared out, so that a grey image gives the same result as its copy in
    three equal channels did (before normalisation's differences between the colours).
    """
    path, old = next((p, m) for p, m in model.named_modules() if isinstance(m, nn.Conv2d))
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    if keep_weights:
        new.load_state_dict(copy.deepcopy(old.state_dict()) | {"weight": _spread(old.weight, in_channels)})
    if hasattr(model, "transform_input"):  # it indexes three colours
        model.transform_input = False  # type: ignore[assignment]
    _set_module(model, path, new)


def _spread(weight: torch.Tensor, in_channels: int) -> torch.Tensor:
    return (weight.detach().sum(1, keepdim=True) / in_channels).expand(-1, in_channels, -1, -1)


def _set_module(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
