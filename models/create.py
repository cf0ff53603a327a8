"""Building a network from its name."""

from __future__ import annotations

from torch import nn

from .registry import ModelError, model_factory, model_info
from .torchvision_models import torchvision_model


def create_model(
    name: str, num_classes: int | None = None, in_channels: int | None = None, pretrained: bool = False
) -> nn.Module:
    """Return a freshly initialised network, in training mode, on torch's default device.

    Args:
        name: one of `model_names()`.
        num_classes: outputs; by default the network's usual number (`model_info(name).num_classes`).
        in_channels: channels of the input images; by default the network's usual number.
        pretrained: load torchvision's ImageNet weights (torchvision's models only).

    Raises:
        ModelError: (a ValueError) unknown name, an impossible size, or weights that do not exist or cannot be fetched.
    """
    info = model_info(name)
    classes = info.num_classes if num_classes is None else num_classes
    channels = info.input_shape[0] if in_channels is None else in_channels
    if classes < 1 or channels < 1:
        raise ModelError(f"{name}: num_classes and in_channels must be at least 1, not {classes} and {channels}")
    if info.source == "torchvision":
        try:
            return torchvision_model(name, classes, channels, pretrained)
        except OSError as error:
            raise ModelError(str(error)) from error
    if pretrained:
        raise ModelError(f"{name}: there are no pretrained weights; only torchvision's models have them")
    return model_factory(name)(classes, channels)
