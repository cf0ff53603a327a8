"""Which fields of a transformers config say how large a thinned model is, where all its layers agree."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from transformers import PreTrainedConfig, PreTrainedModel

Shapes = dict[str, torch.Size]


def fitted_config(model: PreTrainedModel) -> PreTrainedConfig | None:
    """Return a config from which the model's class builds a model of its shapes; None where none of them does.

    Fields are changed one at a time, as long as fewer tensors differ; the model that the config builds decides.
    """
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    config = copy.deepcopy(model.config)
    left = _differing(type(model), config, wanted)
    while left:
        tried = ((_differing(type(model), other, wanted), other) for other in _changed(config, wanted, left))
        better = [(found, other) for found, other in tried if found is not None and len(found) < len(left)]
        if not better:
            return None
        left, config = min(better, key=lambda pair: len(pair[0]))
    return config if left is not None else None


def _changed(config: PreTrainedConfig, wanted: Shapes, differing: Shapes) -> Iterator[PreTrainedConfig]:
    """Yield configs with one number changed as the first differing tensors suggest, by itself or in proportion."""
    ratios = {
        (new, old)
        for name, shape in list(differing.items())[:4]
        for new, old in zip(wanted[name], shape, strict=False)
        if new != old
    }
    for field, value in vars(config).items():
        if field.startswith("_") or type(value) is not int or value < 1:
            continue
        for new, old in sorted(ratios):
            if value * new % old == 0 and value * new // old != value:
                other = copy.deepcopy(config)
                setattr(other, field, value * new // old)
                yield other


def _differing(kind: type[PreTrainedModel], config: PreTrainedConfig, wanted: Shapes) -> Shapes | None:
    """Return the shapes that the config gives to tensors that are of another one; None where it builds no model."""
    try:
        with torch.device("meta"):
            built = kind(config)
    except Exception:  # a config that does not fit together: numbers that do not divide, say
        return None
    found = {name: tensor.shape for name, tensor in built.state_dict().items()}
    if found.keys() != wanted.keys():
        return None
    return {name: shape for name, shape in found.items() if shape != wanted[name]}
