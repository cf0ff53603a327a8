"""From options to a session: data, network, optimizer, schedule, and on a resume the state of then."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from potstill.compression import CompressionScheduler
from potstill.compression.declare.names import UnknownName
from potstill.compression.files.checked import reading
from potstill.compression.processes.ranks import Ranks
from potstill.compression.schedule import Schedule, ScheduleError, build, load_schedule

from ..cli.options import Options
from ..cli.output_options import OutputOptions
from ..errors import UsageError
from ..monitors.checkpoint_interval import Interval
from ..monitors.early_stopping import EarlyStopping, first_epoch_to_watch
from ..monitors.stopping_rules import parse_rule
from ..monitors.tensorboard import EventWriter, require_tensorboard
from ..monitors.trajectory import Trajectory, TrajectoryOption
from ..plots import require_matplotlib
from .averages import with_options
from .confusion import must_be_few
from .deploy import require_exports
from .folder import Followed, RunFolder
from .local_state import seed_rank
from .model_and_data import (
    build_model,
    described,
    example_inputs,
    find_device,
    load_data,
    place,
    start_checkpoint,
    synchronised,
    tell_if_slow,
)
from .optimizers import make_optimizer
from .randomness import seed_everything
from .ranks import leads, own_device
from .resume import restore, tell_classes, thinned
from .session import Session
from .teachers import Teachers, with_teacher
from .training_end import end_of_training

logger = logging.getLogger("potstill")


def prepare(options: Options) -> Session:
    """Put a run together.

    Raises:
        One of `errors.USER_ERRORS`, each with one line that says what to do.
    """
    device = find_device(own_device(options.training.device))
    tell_if_slow(device, options.training.amp)
    _require_extras(options.output)
    checkpoint = start_checkpoint(options)
    info = described(options, checkpoint)
    data = load_data(options, checkpoint, info)
    if options.output.confusion:
        must_be_few(data.classes)
    # Behind the data: a library that is imported to read them may draw random numbers, the first time in a process.
    seed_everything(options.training.seed, options.training.deterministic)
    shape = data.input_shape
    if checkpoint is not None:
        with reading(str(options.start.path)):
            tell_classes(checkpoint, data)
    model = build_model(options, info, len(data.classes), checkpoint)
    if options.training.sync_bn:
        model = synchronised(model, device)
    model = place(model, device)
    for note in data.notes:
        logger.info("%s: %s", data.name, note)
    optimizer = make_optimizer(options.training, model)
    example = example_inputs(shape).to(device, memory_format=torch.channels_last)
    images, _ = next(iter(data.validation.batches(min(64, len(data.validation)))))
    scheduler = CompressionScheduler(model, example, images.to(device), goes_on=options.start.goes_on)
    data = data.for_rank(scheduler.ranks.rank, scheduler.ranks.size)
    seed_rank(options.training.seed, scheduler.ranks)
    scheduler.recipes = thinned(checkpoint) if checkpoint else []
    teachers = Teachers.of(options, len(data.classes), shape)
    schedule = with_teacher(options, read_schedule(options, model), model, teachers)
    epochs = end_of_training(options.training, schedule, data.train.batch_count(options.training.batch_size))
    schedule = with_options(options.training, schedule, epochs)
    if schedule.policies:
        build(schedule, model, optimizer, scheduler=scheduler, build_teacher=teachers)
    session = Session(
        options=options,
        folder=_folder(options, scheduler.ranks),
        device=device,
        info=info,
        data=data,
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        epochs=epochs,
    )
    try:
        _begin(session, schedule, checkpoint)
    except BaseException:
        session.folder.discard()
        raise
    return session


def _require_extras(output: OutputOptions) -> None:
    """Check at once that the packages are there which writing will need at the end.

    Raises:
        UsageError: one is missing; says how to install it.
    """
    if output.plot:
        require_matplotlib()
    if output.tensorboard:
        require_tensorboard()
    require_exports(output.exports)


def _begin(session: Session, schedule: Schedule | None, checkpoint: Mapping[str, Any] | None) -> None:
    """Set what goes by the options, write the schedule into the run folder, and take up the state of then.

    Raises:
        UsageError: training would end before the epoch to go on with.
    """
    options = session.options
    session.best.by = options.output.best_by
    session.interval = Interval(options.output.checkpoint_every)
    start = options.start
    session.trained = bool(start.exp_load_weights_from or options.data.pretrained or start.reset_optimizer)
    _watch(session)
    session.events = EventWriter(session.folder.path) if options.output.tensorboard and leads() else None
    if schedule is not None and schedule.text:
        session.folder.write_text("schedule.yaml", schedule.text)
    if checkpoint is not None and options.start.resume_from:
        restore(session, checkpoint)
    if session.trajectory and not session.trajectory.steps:
        session.trajectory.record(session.steps)
    if session.epoch > session.epochs and options.training.epochs is not None:
        raise UsageError(f"--epochs {session.epochs} ends before the epoch to go on with, {session.epoch}")


def _watch(run: Session) -> None:
    """Set up early stopping and trajectory as the options ask.

    Raises:
        UsageError: a pattern of `--trajectory` fits no parameter, or `--early-stop` has no epoch to choose from.
    """
    options = run.options
    if options.training.early_stop:
        first = first_epoch_to_watch(run.scheduler, run.epochs, run.minibatches)
        run.early_stopping = EarlyStopping(parse_rule(options.training.early_stop), run.model, run.scheduler, first)
    if options.output.trajectory:
        asked = TrajectoryOption.parse(options.output.trajectory)
        every = asked.interval(run.epochs * run.minibatches)
        try:
            run.trajectory = Trajectory(run.model, asked.patterns, every, fixed=asked.every is not None)
        except UnknownName as error:
            raise UsageError(f"--trajectory: {error}") from error


def read_schedule(options: Options, model: nn.Module) -> Schedule | None:
    """Return the schedule of `--compress`, checked against the network.

    Raises:
        ScheduleError: all that is wrong with it.
    """
    if not options.compression.compress:
        return None
    try:
        schedule = load_schedule(options.compression.compress, model)
    except ScheduleError as error:
        _warn(error.warnings)
        raise
    _warn(schedule.warnings)
    return schedule


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        logger.warning("%s", warning)


def _folder(options: Options, ranks: Ranks) -> RunFolder:
    """Return the run folder, which the first process makes and writes to."""
    folder = _own_folder(options) if leads() else None
    path = ranks.first(None if folder is None else str(folder.path))
    return Followed(Path(path)) if folder is None else folder


def _own_folder(options: Options) -> RunFolder:
    if options.folder is not None:
        return RunFolder(options.folder)
    if options.sensitivity.sense and options.sensitivity.sense_folder:
        return RunFolder(options.sensitivity.sense_folder)
    if options.start.resume_from and options.start.resume_from.is_dir():
        return RunFolder(options.start.resume_from)
    return RunFolder.new(options.output.out_dir, options.output.name)
