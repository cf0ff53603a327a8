"""Which fields of a transformers config say how large a thinned model is, where all its layers agree."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from potstill.thinning.attributes import entries_within, kept_as

Entry = tuple[str, str]
"""A module, and the name under which its own copy of the config keeps a number (`config.num_heads`)."""
Sizes = dict[str | Entry, Any]
"""Shapes of tensors and numbers that modules keep, by name."""


def fitted_config(model: PreTrainedModel) -> PretrainedConfig | None:
    """Return a config from which the model's class builds a model of its sizes; None where none of them does.

    Fields are changed one at a time, as long as fewer sizes differ; the model that the config builds decides.
    """
    return _fitted(type(model), copy.deepcopy(model.config), _sizes(model, _own_entries(model)), set())


def _fitted(
    kind: type[PreTrainedModel], config: PretrainedConfig, wanted: Sizes, seen: set[str]
) -> PretrainedConfig | None:
    left = _differing(kind, config, wanted)
    if not left:
        return None if left is None else config
    if (text := config.to_json_string(use_diff=False)) in seen:  # the same changes in another order
        return None
    seen.add(text)
    tried = ((_differing(kind, other, wanted), other) for other in _changed(config, wanted, left))
    better = [(len(found), other) for found, other in tried if found is not None and len(found) < len(left)]
    # The best first, but it may lead nowhere: smaller heads have the shapes of fewer ones at once.
    for _, other in sorted(better, key=lambda pair: pair[0]):
        if (found := _fitted(kind, other, wanted, seen)) is not None:
            return found
    return None


def _changed(config: PretrainedConfig, wanted: Sizes, differing: Sizes) -> Iterator[PretrainedConfig]:
    """Yield configs with one number changed as the first differing tensors suggest, by itself or in proportion."""
    shapes = [(wanted[name], shape) for name, shape in differing.items() if isinstance(shape, torch.Size)]
    ratios = {pair for shape in shapes[:4] for pair in zip(*shape, strict=False) if pair[0] != pair[1]}
    for field, value in vars(config).items():
        if field.startswith("_") or type(value) is not int or value < 1:
            continue
        for new, old in sorted(ratios):
            if value * new % old == 0 and value * new // old != value:
                other = copy.deepcopy(config)
                setattr(other, field, value * new // old)
                yield other


def _differing(kind: type[PreTrainedModel], config: PretrainedConfig, wanted: Sizes) -> Sizes | None:
    """Return the sizes that the config gives to what is of another one; None where it builds no such model."""
    try:
        with torch.device("meta"):
            model = kind(config)
            found = _sizes(model, [key for key in wanted if isinstance(key, tuple)])
    except Exception:  # a config that does not fit together: numbers that do not divide, say
        return None
    if found.keys() != wanted.keys():
        return None
    return {name: size for name, size in found.items() if size != wanted[name]}


def _own_entries(model: PreTrainedModel) -> list[Entry]:
    """Return what modules, in copies of the config that thinning gave them, keep of other sizes than the model has."""
    whole = dict(entries_within("config", model.config))
    return [
        (module, name)
        for module, part in model.named_modules()
        for name, value in entries_within("config", getattr(part, "config", None))
        if type(value) is int and type(whole.get(name)) is int and value != whole[name]
    ]


def _sizes(model: nn.Module, entries: Iterable[Entry]) -> Sizes:
    """Return the shapes of a model's tensors, and the numbers that modules compute with (a head's size, a scale)."""
    found: Sizes = {name: tensor.shape for name, tensor in [*model.state_dict().items(), *model.named_buffers()]}
    found |= {
        f"{module}.{name}": value
        for module, part in model.named_modules()
        for name, value in vars(part).items()
        if type(value) in (int, float) and not name.startswith("_")
    }
    return found | {(module, name): kept_as(model.get_submodule(module), name) for module, name in entries}
