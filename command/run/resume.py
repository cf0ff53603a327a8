"""Takes a run up from a checkpoint. Each field is checked before it is used: the file may be a stranger's."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from potstill.compression import Masks
from potstill.compression.declare.names import UnknownName
from potstill.compression.files.checked import Field, reading
from potstill.compression.files.optimizer_state import load_optimizer_state
from potstill.models.datasets import DataBundle
from potstill.thinning import Recipe, resize_to
from potstill.thinning.files.regular import must_be_regular

from ..errors import UsageError
from ..monitors.early_stopping import EarlyStopping, first_epoch_to_watch
from ..monitors.stopping_rules import parse_rule
from ..monitors.trajectory import Trajectory, TrajectoryOption
from .best_epochs import Score
from .evaluation import Meter
from .randomness import restore_random_state
from .session import Session

WATCHERS = ("early_stopping", "trajectory")


def watch(run: Session) -> None:
    """Set up early stopping and trajectory as the options ask.

    Raises:
        UsageError: a pattern of `--trajectory` fits no parameter, or `--early-stop` has no epoch to choose from.
    """
    if run.options.early_stop:
        first = first_epoch_to_watch(run.scheduler, run.epochs, run.minibatches)
        run.early_stopping = EarlyStopping(parse_rule(run.options.early_stop), first)
    if run.options.trajectory:
        option = TrajectoryOption.parse(run.options.trajectory)
        try:
            run.trajectory = Trajectory(run.model, option.patterns, option.interval(run.epochs * run.minibatches))
        except UnknownName as error:
            raise UsageError(f"--trajectory: {error}") from error


def _restore_watchers(run: Session, checkpoint: Mapping[str, Any]) -> None:
    """Take up what the run of a checkpoint had watched; a watch that is new begins here.

    Raises:
        CheckpointError: what it watched is damaged.
    """
    known = {name: Field(checkpoint[name], name) for name in WATCHERS if checkpoint.get(name) is not None}
    if run.early_stopping and "early_stopping" in known:
        with reading("early_stopping"):
            run.early_stopping.restore(known["early_stopping"])
    elif run.early_stopping:
        run.early_stopping.first_epoch = max(run.early_stopping.first_epoch, run.epoch)
    if run.trajectory and "trajectory" in known:
        run.trajectory.restore(known["trajectory"])
        if TrajectoryOption.parse(run.options.trajectory).every is None:
            run.trajectory.every = known["trajectory"]["every"].integer(1)


logger = logging.getLogger("potstill")

LARGEST_SIDE = 4096


def checkpoint_path(path: Path) -> Path:
    """The checkpoint that a path means: a file, or the newest one of a run folder."""
    return must_be_regular(path / "checkpoint.pt") if path.is_dir() else path


def check_sizes(checkpoint: Mapping[str, Any]) -> None:
    """Check what a network is built from: the classes and the input shape (channels, height, width).

    Raises:
        CheckpointError: they are missing or cannot be.
    """
    state = Field(dict(checkpoint))
    values = sum(tensor.numel() for tensor in checkpoint["state_dict"].values())
    state["num_classes"].integer(1, max(values, 1))
    sides = state["input_shape"].items()
    if len(sides) != 3:
        raise state["input_shape"].error("channels, height and width")
    for side in sides:
        side.integer(1, LARGEST_SIDE)


def thinned(checkpoint: Mapping[str, Any]) -> list[Recipe]:
    """What was removed from a checkpoint's network.

    Raises:
        CheckpointError: a recipe is none.
    """
    with reading("scheduler.recipes"):
        return [Recipe.from_json(text.text()) for text in Field(dict(checkpoint))["scheduler"]["recipes"].items()]


def validation_images(checkpoint: Mapping[str, Any]) -> list[int] | None:
    """The positions of the images that a run validates on; None where it is not known.

    Raises:
        CheckpointError: they are no positions.
    """
    split = Field(dict(checkpoint))["split"]
    return None if split.value is None else [position.integer() for position in split.items()]


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
    resize_to(model, checkpoint["state_dict"])
    for recipe in recipes:
        Recipe(recipe.model, attributes=recipe.attributes).apply(model)
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
    """Masks always; epoch, optimizer, measurements and random state unless the optimizer is to be reset.

    Raises:
        CheckpointError: a field is missing or not what it should be.
    """
    with reading(str(session.options.resume_from)):
        _restore(session, Field(dict(checkpoint)))


def _restore(session: Session, state: Field) -> None:
    scheduler = state["scheduler"]
    if session.options.reset_optimizer:
        session.scheduler.load_state_dict({**scheduler.value, "policies": {}})
        return
    session.epoch = state["epoch"].integer(most=2**31)
    session.minibatch = state["minibatch"].integer(most=session.minibatches)
    with reading("scheduler"):
        session.scheduler.load_state_dict(scheduler.value)
    _restore_optimizer(session, state)
    session.meter = Meter(**_meter(state["meter"]))
    session.rows = [{name: metric(value) for name, value in row.mapping().items()} for row in state["rows"].items()]
    session.best.scores = [_score(score) for score in state["best"].items()]
    session.dense_top1 = None if state["dense_top1"].value is None else state["dense_top1"].number()
    session.trained = state["trained"].flag()
    with reading("random"):
        if state["random"].value is not None:
            restore_random_state(state["random"].value)
    if session.early_stopping and state["early_stopping"].value is not None:
        _check_early_stopping(state["early_stopping"], session.model)
    _restore_watchers(session, state.value)


def _check_early_stopping(state: Field, model: nn.Module) -> None:
    """Check errors and the best network so far, which is needed when training has ended: too late to find out."""
    state["first_epoch"].integer()
    for error in (*state["training"].items(), *state["validation"].items()):
        error.number(finite=False)
    if len(state["training"].items()) != len(state["validation"].items()):
        raise state["training"].error("as many errors as in validation")
    best = state["best"]
    if best.value is not None:
        for name, tensor in model.state_dict().items():
            best["state_dict"].only(model.state_dict())[name].tensor(tensor.shape, tensor.dtype, finite=False)
        Masks(copy.deepcopy(model)).load_state_dict(best["scheduler"]["masks"].value)


def metric(field: Field) -> Any:
    """A value in a row of the metrics: a number, perhaps NaN, or nothing."""
    return field.value if field.value is None or type(field.value) is float else field.number()


def _meter(field: Field) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in field.only([f.name for f in fields(Meter)]).mapping().items():
        if name == "parts":
            values[name] = {part: mean.number() for part, mean in value.mapping().items()}
        else:
            values[name] = value.number() if name == "loss" else value.integer()
    return values


def _score(field: Field) -> Score:
    field.only([f.name for f in fields(Score)])
    top1, top5, sparsity = (field[name].number() for name in ("top1", "top5", "sparsity"))
    return Score(field["epoch"].integer(), top1, top5, sparsity, field["nonzero"].integer())


def _restore_optimizer(session: Session, state: Field) -> None:
    options, theirs = session.options, state["optimizer_name"].text()
    if theirs != options.optimizer:
        logger.warning("the checkpoint's optimizer is %s: %s starts afresh", theirs, options.optimizer)
        return
    load_optimizer_state(session.optimizer, state["optimizer"])
