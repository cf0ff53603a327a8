"""timm's networks as `timm/NAME`, for any number of classes: imported where one is named (Wightman 2019)."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

from torch import nn

from potstill.near_names import did_you_mean

from .info import ModelError, ModelInfo

PREFIX = "timm/"
MISSING = 'timm is not installed: pip install "potstill[timm]"'


def is_timm_name(name: str) -> bool:
    """Return whether a name asks for a network of timm's, be there such a one or not."""
    return name.startswith(PREFIX)


def timm_info(name: str) -> ModelInfo:
    """Return what a network of timm's expects: the input size, mean and deviation of its trained weights.

    Raises:
        ModelError: timm is not installed, or has none of this name.
    """
    if find_spec("timm") is None:
        raise ModelError(f"{name}: {MISSING}")
    import timm

    own = name.removeprefix(PREFIX)
    if not timm.is_model(own):  # nor does it look for one on a hub
        raise ModelError(f"timm has no network {own[:80]!r}{did_you_mean(own, timm.list_models(), 3)}")
    config = timm.models.get_pretrained_cfg(own)
    channels, height, width = config.input_size if config else (3, 224, 224)
    mean, std = (tuple(config.mean), tuple(config.std)) if config else (None, None)
    return ModelInfo(name, (channels, height, width), 1000, "timm's", "timm", mean, std)


def timm_model(info: ModelInfo, num_classes: int, pretrained: bool) -> nn.Module:
    """Build a network of timm's, in training mode; with `pretrained` its default trained weights and a fresh head.

    Raises:
        ModelError: it does not take inputs of this shape, or the weights can be neither found nor downloaded.
    """
    import timm

    own = info.name.removeprefix(PREFIX)
    usual = timm_info(info.name).input_shape
    size: dict[str, Any] = {"img_size": info.input_shape[1:]} if info.input_shape != usual and _is_fixed(own) else {}
    try:
        plain: nn.Module = timm.create_model(own, num_classes=num_classes, in_chans=info.input_shape[0], **size)
    except Exception as error:
        raise ModelError(f"{info.name} cannot be built for images of {_size(info)}: {_line(error)}") from error
    if not pretrained:
        return plain
    hub, level = logging.getLogger("huggingface_hub"), logging.getLogger("huggingface_hub").level
    hub.setLevel(logging.ERROR)  # it tells of each of its attempts
    try:
        trained: nn.Module = timm.create_model(
            own, pretrained=True, num_classes=num_classes, in_chans=info.input_shape[0], **size
        )
    except Exception as error:  # of the hub, of the connection, of the file
        raise ModelError(
            f"the trained weights of {info.name} can be neither found in timm's cache nor downloaded"
            f" ({type(error).__name__}: {_line(error)}); leave out pretrained"
        ) from error
    finally:
        hub.setLevel(level)
    return trained


def _is_fixed(name: str) -> bool:
    import timm

    config = timm.models.get_pretrained_cfg(name)
    return bool(config and config.fixed_input_size)


def _size(info: ModelInfo) -> str:
    return "x".join(map(str, info.input_shape))


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
