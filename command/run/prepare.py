"""From options to a session: data, network, optimizer, schedule, and on a resume the state of then."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from potstill.compression import CompressionScheduler, load_checkpoint
from potstill.compression.declare.names import UnknownName
from potstill.compression.files.checked import Field, reading
from potstill.compression.processes.ranks import Ranks
from potstill.compression.schedule import Schedule, ScheduleError, load_schedule
from potstill.compression.schedule import build as build_schedule
from potstill.models import ModelInfo
from potstill.models.create import build
from potstill.models.datasets import DataBundle, class_count, load_dataset
from potstill.models.transformers_models import has_weights

from ..cli.option_types import floats
from ..cli.options import Options
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
from .network import network_info
from .optimizers import make_optimizer
from .randomness import seed_everything
from .ranks import leads, own_device, started
from .resume import checkpoint_path, fill, restore, tell_classes, thinned, validation_images, validation_names
from .session import Session
from .teachers import Teachers, with_teacher
from .training_end import end_of_training

logger = logging.getLogger("potstill")


def find_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is the first CUDA device, or else the CPU.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device


def start_checkpoint(options: Options) -> Mapping[str, Any] | None:
    """Return the checkpoint to start from, or None.

    Raises:
        CheckpointError: it is missing, damaged or not one of ours.
        UsageError: it is of another network.
    """
    path = options.start.path
    if path is None:
        return None
    checkpoint = options.checkpoint or load_checkpoint(checkpoint_path(path))
    if checkpoint["arch"] != options.data.arch:
        raise UsageError(f"{path} is a checkpoint of {checkpoint['arch']}, not of {options.data.arch} (--arch)")
    return checkpoint


def described(options: Options, checkpoint: Mapping[str, Any] | None) -> ModelInfo:
    """Return what the network is, and say where weights lie unused.

    Raises:
        CheckpointError: the checkpoint describes none.
        ModelError: there is no such network.
    """
    with reading(str(options.start.path)) if checkpoint is not None else nullcontext():
        info = network_info(options, checkpoint)
    unused = info.source == "transformers" and checkpoint is None and not options.data.pretrained
    if unused and has_weights(info.name):
        logger.info("the weights in %s are not used: --pretrained begins with them", info.name)
    return info


def load_data(options: Options, checkpoint: Mapping[str, Any] | None, info: ModelInfo) -> DataBundle:
    """Return the data set, its images in the network's size; a run that goes on validates on the same as before."""
    data = options.data
    goes_on = checkpoint if checkpoint and options.start.resume_from else None
    return load_dataset(
        data.dataset,
        data.data,
        validation_split=data.validation_split,
        seed=options.training.seed,
        workers=data.workers,
        input_shape=info.input_shape,
        augmentation=data.augmentation,
        normalise=data.normalise,
        mean=statistics("mean", data.mean, checkpoint, info),
        std=statistics("std", data.std, checkpoint, info),
        share_train=data.effective_train_size,
        share_validation=data.effective_valid_size,
        share_test=data.effective_test_size,
        indices=validation_images(goes_on) if goes_on else None,
        held_out=validation_names(goes_on) if goes_on else None,
        num_classes=checkpoint["num_classes"] if checkpoint else None,
        limit_train=data.limit_train,
        limit_validation=data.limit_validation,
        limit_test=data.limit_test,
    )


def statistics(
    what: str, given: str | None, checkpoint: Mapping[str, Any] | None, info: ModelInfo
) -> Sequence[float] | None:
    """Return the mean or deviation to normalise by: given, of the checkpoint, or the network's; None: the data's."""
    if given is not None:
        return floats(given)
    if checkpoint is None or checkpoint.get(what) is None:
        found: Sequence[float] | None = getattr(info, what)
        return found
    return [value.number() for value in Field(dict(checkpoint))[what].items()]


def build_model(options: Options, info: ModelInfo, classes: int, checkpoint: Mapping[str, Any] | None) -> nn.Module:
    """Return the network with its starting weights, thinned where the checkpoint's is.

    Raises:
        CheckpointError: the checkpoint does not fit.
    """
    model = build(info, classes, options.data.pretrained and checkpoint is None)
    if checkpoint is not None:
        with reading(str(options.start.path)):
            fill(model, checkpoint, info.input_shape)
    return model


def class_count_of(options: Options, checkpoint: Mapping[str, Any] | None, info: ModelInfo) -> int:
    """Return the classes of a network that is shown without data.

    They are those of the checkpoint or of the data set that was asked for, if its classes can be known unread; else as
    many as the network usually has.
    """
    if checkpoint is not None:
        return int(checkpoint["num_classes"])
    known = class_count(options.data.dataset, options.data.data) if options.data.dataset_given else None
    return known or info.num_classes


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Move to the device; convolutional networks in channels-last layout, which halves their step time on CPUs."""
    return model.to(device).to(memory_format=torch.channels_last)


def prepare(options: Options) -> Session:
    """Put a run together.

    Raises:
        One of `errors.USER_ERRORS`, each with one line that says what to do.
    """
    device = find_device(own_device(options.training.device))
    if options.output.plot:
        require_matplotlib()
    if options.output.tensorboard:
        require_tensorboard()
    require_exports(options.output.exports)
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
    scheduler = CompressionScheduler(model, example, validation_batch=images.to(device))
    data = data.for_rank(scheduler.ranks.rank, scheduler.ranks.size)
    seed_rank(options.training.seed, scheduler.ranks)
    scheduler.recipes = thinned(checkpoint) if checkpoint else []
    teachers = Teachers.of(options, len(data.classes), shape)
    schedule = with_teacher(options, read_schedule(options, model), model, teachers)
    epochs = end_of_training(options.training, schedule, data.train.batch_count(options.training.batch_size))
    schedule = with_options(options.training, schedule, epochs)
    if schedule.policies:
        build_schedule(schedule, model, optimizer, scheduler=scheduler, build_teacher=teachers)
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


def example_inputs(shape: tuple[int, ...]) -> torch.Tensor:
    """Return two random images, the same in each run, drawn without touching the global generator."""
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), device="cpu")


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


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the network with BatchNorms whose statistics are of all processes' images.

    Raises:
        UsageError: there is one process, or torch cannot do it on this device.
    """
    if started() == 1 or device.type != "cuda":
        raise UsageError("--sync-bn is for several processes on GPUs (torchrun --nproc-per-node N)")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


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
