"""Takes a run up from a checkpoint. Each field is checked before it is used: the file may be a stranger's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from potstill.compression.files.checked import CheckpointError, Field, held_bytes, reading
from potstill.models import create_model, model_info
from potstill.models.datasets import DataBundle
from potstill.thinning import Recipe, resize_by
from potstill.thinning.dense_size import dense_problem
from potstill.thinning.files.regular import must_be_regular

from ..errors import UsageError
from .averages import keep_average
from .changed_options import tell_changes
from .session import Session


def checkpoint_path(path: Path) -> Path:
    """Return the checkpoint that a path means: a file, or the newest one of a run folder."""
    return must_be_regular(path / "checkpoint.pt") if path.is_dir() else path


def check_sizes(checkpoint: Mapping[str, Any]) -> None:
    """Check what a network is built from: the classes and the input shape (channels, height, width).

    Raises:
        CheckpointError: they are missing or cannot be.
    """
    state = Field(dict(checkpoint))
    weights = list(checkpoint["state_dict"].values())
    sides = [side for tensor in weights if 0 not in tensor.stride() for side in tensor.shape]
    classes = state["num_classes"].integer(1, max([2, *sides]))  # a layer that is nowhere in the file takes any memory
    takes = model_info(state["arch"].text()).input_shape  # not what the file says: images of 4096 x 4096 take 16 GB
    if state["input_shape"].integers(3) != tuple(takes):
        raise state["input_shape"].error(f"{list(takes)}, which {checkpoint['arch']} takes")
    problem = dense_problem(partial(create_model, checkpoint["arch"], classes, takes[0]), held_bytes(weights))
    if problem:
        raise CheckpointError(problem)


def thinned(checkpoint: Mapping[str, Any]) -> list[Recipe]:
    """Return what was removed from a checkpoint's network.

    Raises:
        CheckpointError: a recipe is none.
    """
    with reading("scheduler.recipes"):
        return [Recipe.from_json(text.text()) for text in Field(dict(checkpoint))["scheduler"]["recipes"].items()]


def validation_images(checkpoint: Mapping[str, Any]) -> list[int] | None:
    """Return the positions of the images that a run validates on; None where it is not known.

    Raises:
        CheckpointError: they are no positions.
    """
    split = Field(dict(checkpoint))["split"]
    return None if split.value is None else [position.integer() for position in split.items()]


def validation_names(checkpoint: Mapping[str, Any]) -> list[str] | None:
    """Return the file names of the images that a run validates on; None where they have none, or it did not keep any.

    Raises:
        CheckpointError: they are no names.
    """
    names = [name.text() for name in Field(dict(checkpoint))["split_names"].items()] if (
        "split_names" in checkpoint
    ) else []  # fmt: skip
    return names or None


def fill(model: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    """Give a dense network the sizes and weights of a checkpoint's, and run it once.

    Raises:
        CheckpointError: it is of another network, or one with another code.
    """
    state = Field(dict(checkpoint))
    recipes = thinned(checkpoint)
    own = model.state_dict()
    for name, field in state["state_dict"].mapping().items():
        if name in own:
            field.tensor(None, own[name].dtype, finite=False)
    resize_by(model, checkpoint["state_dict"], recipes)
    model.load_state_dict(checkpoint["state_dict"])
    for name, parameter in model.named_parameters():
        Field(parameter.detach(), f"state_dict.{name}").tensor()
    mode = model.training
    with torch.no_grad(), reading("the network, as its file describes it"):
        model.eval()(torch.zeros(2, *checkpoint["input_shape"]))
    model.train(mode)


def check_fit(checkpoint: Mapping[str, Any], data: DataBundle) -> None:
    """Check that a network was made for images of this shape.

    Raises:
        UsageError: it takes others.
    """
    theirs = tuple(checkpoint["input_shape"])
    if theirs != tuple(data.input_shape):
        raise UsageError(
            f"the checkpoint's network takes images of {list(theirs)}, {data.name} has {list(data.input_shape)}"
        )


def restore(session: Session, checkpoint: Mapping[str, Any]) -> None:
    """Take up a run; with `--reset-optimizer` only its masks.

    Raises:
        CheckpointError: a field is missing or not what it should be.
    """
    start = session.options.start
    with reading(str(start.resume_from)):
        state = Field(dict(checkpoint))
        if start.reset_optimizer:
            session.scheduler.load_state_dict({**state["scheduler"].value, "policies": {}})
            keep_average(session.scheduler, state)
            return
        mode = session.options.mode
        if not (mode.evaluate or mode.thinnify or session.options.sensitivity.sense):
            tell_changes(session.options.kept(), session.data, state)
        session.restore(state)
        keep_average(session.scheduler, state)
