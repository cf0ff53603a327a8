"""Which network a run is of: by the options, or as a checkpoint knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from potstill.compression import CheckpointError
from potstill.compression.files.checked import Field, held_bytes
from potstill.models import ModelInfo, model_info
from potstill.models.bounded import at_most
from potstill.models.create import build
from potstill.thinning.dense_size import dense_problem

from ..cli.option_types import LARGEST_SIDE, sides
from ..cli.options import Options

MOST_ELEMENTS = 2**30
"""A network that a checkpoint describes, and not a name here, has so many elements at most, or those of its file."""


def network_info(options: Options, checkpoint: Mapping[str, Any] | None) -> ModelInfo:
    """Return what the network is, with the shape of its images: as asked for, else of the checkpoint, else as usual.

    Raises:
        ModelError: there is no such network.
        CheckpointError: the checkpoint describes none.
    """
    asked = options.data.input_size
    info = model_info(options.data.arch) if checkpoint is None else stored_info(checkpoint)
    return info if asked is None else replace(info, input_shape=(info.input_shape[0], *sides(asked)))


def stored_info(checkpoint: Mapping[str, Any]) -> ModelInfo:
    """Return what the network of a checkpoint is. It is checked first: classes, images, and a config that it holds.

    Raises:
        CheckpointError: these are missing or cannot be.
        ModelError: there is no such network here.
    """
    state = Field(dict(checkpoint))
    weights = list(checkpoint["state_dict"].values())
    lengths = [side for tensor in weights if 0 not in tensor.stride() for side in tensor.shape]
    classes = state["num_classes"].integer(1, max([2, *lengths]))  # a layer nowhere in the file takes any memory
    config = _optional(state, "config")
    plain = None if config.value is None else {key: value.value for key, value in config.mapping().items()}
    info = model_info(state["arch"].text(), plain)
    shape = state["input_shape"].integers(3)
    fits = shape[0] == info.input_shape[0] and all(1 <= side <= LARGEST_SIDE for side in shape[1:])
    if shape != info.input_shape and not fits:  # images of 4096 x 4096 take 16 GB
        wanted = f"{list(info.input_shape)}, which {info.name[:80]} takes"
        raise state["input_shape"].error(f"{wanted}, or other sides of at most {LARGEST_SIDE}")
    info = replace(info, input_shape=(shape[0], shape[1], shape[2]), num_classes=classes)
    if info.config is not None:
        with at_most(max(MOST_ELEMENTS, sum(tensor.numel() for tensor in weights)), len(weights)):
            build(info, classes)
    elif problem := dense_problem(partial(build, info, classes), held_bytes(weights)):
        raise CheckpointError(problem)
    return info


def class_names(checkpoint: Mapping[str, Any]) -> list[str] | None:
    """Return the names of a checkpoint's classes; None where it does not know them.

    Raises:
        CheckpointError: they are no names, or not as many as there are classes.
    """
    state = Field(dict(checkpoint))
    names = _optional(state, "classes")
    if names.value is None:
        return None
    found = [name.text() for name in names.items()]
    if len(found) != checkpoint["num_classes"]:
        raise names.error(f"{checkpoint['num_classes']} names of classes")
    return found


def about(
    info: ModelInfo, classes: Sequence[str] | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> dict[str, Any]:
    """Return what an exported network is good for: its name, images, how these are normalised, and its classes."""
    known = {
        "arch": info.name,
        "input_shape": list(info.input_shape),
        "mean": None if mean is None else list(mean),
        "std": None if std is None else list(std),
        "classes": None if classes is None else list(classes),
        "config": None if info.config is None else dict(info.config),
    }
    return {name: value for name, value in known.items() if value is not None}


def _optional(state: Field, name: str) -> Field:
    return state[name] if name in state.value else Field(None, name)
