"""A model of each family of transformers in a small size, and inputs that it runs on."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import MODEL_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from families.inputs import inputs_of
from families.sizes import variants

LARGE = 25_000_000
"""A model of more parameters was not made small."""


def names() -> list[str]:
    """Return the families that AutoModel knows."""
    return sorted(MODEL_MAPPING_NAMES)


def model_of(family: str) -> tuple[str, nn.Module, Any]:
    """Return the name of a family's model, the model with small sizes, and inputs that it runs on."""
    declared, first = CONFIG_MAPPING[family], None
    found = MODEL_MAPPING[declared]
    kind = found[0] if isinstance(found, tuple) else found
    for config_class in dict.fromkeys((declared, kind.config_class)):
        for changes in variants(config_class()):
            try:
                model = small(kind, config_class, changes)
                return kind.__name__, model, inputs_of(model)
            except Exception as error:  # each configuration refuses in its own way: with other sizes then
                first = first or error
    raise first or NotImplementedError(f"{family} has no configuration")


def small(kind: type[PreTrainedModel], config_class: type[PreTrainedConfig], changes: dict[str, Any]) -> nn.Module:
    """Return a model whose configuration has changes, unless it is large with them."""
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in kind(config_class(**changes)).parameters())
    if parameters > LARGE:
        raise NotImplementedError(f"{parameters:,} parameters in the smallest size tried")
    return kind(config_class(**changes)).eval()
