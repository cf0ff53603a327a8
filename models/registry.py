"""The names of networks: who builds each, and for which input.

One function with a decorator adds a network::

    @register_model("lenet", input_shape=(1, 28, 28), num_classes=10)
    def lenet(num_classes: int, in_channels: int) -> nn.Module:
        \"\"\"LeNet-5 (LeCun et al. 1998).\"\"\"
        ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from potstill.near_names import did_you_mean

from .info import ModelError, ModelInfo
from .registered_again import is_same
from .timm_models import is_timm_name, timm_info
from .torchvision_models import is_torchvision_name, torchvision_names
from .transformers_models import is_transformers_name, transformers_info

Factory = Callable[[int, int], nn.Module]


_infos: dict[str, ModelInfo] = {}
_factories: dict[str, Factory] = {}


def register_model(
    name: str, *, input_shape: tuple[int, int, int], num_classes: int, description: str = ""
) -> Callable[[Factory], Factory]:
    """Make a factory `(num_classes, in_channels) -> nn.Module` known by name.

    Without a description the first line of the factory's docstring serves. A name of torchvision's may not be taken.

    Raises:
        ModelError: the name is taken by another factory.
    """

    def enter(factory: Factory) -> Factory:
        taken = _factories.get(name)
        if is_torchvision_name(name) or (taken is not None and not is_same(taken, factory)):
            owner = "torchvision" if taken is None else f"{taken.__module__}.{taken.__name__}"
            raise ModelError(f"model name {name!r} is already taken by {owner}; choose another")
        line = description or (inspect.getdoc(factory) or "").partition("\n")[0]
        _infos[name] = ModelInfo(name, input_shape, num_classes, line)
        _factories[name] = factory
        return factory

    return enter


def model_names() -> list[str]:
    """Return the names of the project's own networks and torchvision's, sorted; timm's are `timm/NAME`."""
    return sorted({*_factories, *torchvision_names()})


def model_info(name: str, config: Mapping[str, Any] | None = None) -> ModelInfo:
    """Return the usual input shape, number of classes and a line of description of a network.

    Args:
        name: as `create_model` takes it.
        config: what a network of transformers is built from, where its folder is not to be read.

    Raises:
        ModelError: no network has this name; the message suggests near ones.
    """
    if is_timm_name(name):
        return timm_info(name)
    if is_transformers_name(name):
        return transformers_info(name, config)
    if name in _infos:
        return _infos[name]
    if is_torchvision_name(name):
        side = 299 if name == "inception_v3" else 224
        return ModelInfo(name, (3, side, side), 1000, "torchvision's own", "torchvision")
    hint = did_you_mean(name, model_names(), 3) or f"; there are {len(model_names())}, see model_names()"
    raise ModelError(f"no model is called {name!r}{hint}")


def model_factory(name: str) -> Factory:
    """Return the registered factory of one of the project's own networks (KeyError for any other name)."""
    return _factories[name]
