"""Takes a run up from a checkpoint. Each field is checked before it is used: the file may be a stranger's."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from potstill.compression.files.checked import Field, reading
from potstill.models.datasets import DataBundle
from potstill.thinning import Recipe, resize_by
from potstill.thinning.files.regular import must_be_regular

from .averages import keep_average
from .changed_options import tell_changes
from .network import class_names
from .session import Session

logger = logging.getLogger("potstill")


def checkpoint_path(path: Path) -> Path:
    """Return the checkpoint that a path means: a file, or the newest one of a run folder."""
    return must_be_regular(path / "checkpoint.pt") if path.is_dir() else path


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


def fill(model: nn.Module, checkpoint: Mapping[str, Any], shape: Sequence[int] | None = None) -> None:
    """Give a dense network the sizes and weights of a checkpoint's, and run it once, on images of its or this shape.

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
        model.eval()(torch.zeros(2, *(shape or checkpoint["input_shape"])))
    model.train(mode)


def tell_classes(checkpoint: Mapping[str, Any], data: DataBundle) -> None:
    """Warn where a network's classes have other names than those of the data: its answers mean something else.

    Raises:
        CheckpointError: its classes are no names.
    """
    theirs = class_names(checkpoint)
    if theirs is not None and theirs != data.classes:
        was, now = next((a, b) for a, b in zip(theirs, data.classes, strict=True) if a != b)
        told = ascii(now)[:80], ascii(was)[:80]
        logger.warning("the classes are others than the checkpoint's: one is %s, which was %s", *told)


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
