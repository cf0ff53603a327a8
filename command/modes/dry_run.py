"""`--dry-run`: the resolved schedule, without data: what acts when, on which parameters, at what learning rate."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from torch.optim import Optimizer

from potstill.compression import CompressionScheduler, build, format_table
from potstill.compression.account import tell_account
from potstill.compression.files.checked import reading
from potstill.compression.schedule import Schedule

from ..cli.options import Options
from ..plots.style import require_matplotlib
from ..plots.timeline import plot_timeline
from ..run.averages import with_options
from ..run.folder import RunFolder
from ..run.optimizers import make_optimizer
from ..run.prepare import build_model, class_count_of, described, example_inputs, read_schedule, start_checkpoint
from ..run.randomness import seed_everything
from ..run.teachers import Teachers, with_teacher
from ..run.training_end import end_of_training
from .policy_table import Acting, acting, names_text, policies_table, remarks
from .timeline import Epoch, size, timeline, timeline_table

logger = logging.getLogger("potstill")

LONGEST = 1000
"""So many epochs are walked: each costs what the policies' own work takes, from milliseconds to seconds."""


def dry_run(options: Options) -> None:
    """Print what a schedule would do to a network.

    Raises:
        ScheduleError: all that is wrong with the schedule.
    """
    if options.output.plot:
        require_matplotlib()
    seed_everything(options.training.seed, options.training.deterministic)
    checkpoint = start_checkpoint(options)
    info = described(options, checkpoint)
    classes = class_count_of(options, checkpoint, info)
    model = build_model(options, info, classes, checkpoint)
    teachers = Teachers.of(options, classes, info.input_shape)
    schedule = with_teacher(options, read_schedule(options, model), model, teachers)
    if schedule is None:
        return
    schedule = with_options(options.training, schedule, end_of_training(options.training, _by_epoch(schedule), None))
    optimizer = make_optimizer(options.training, model)
    scheduler = CompressionScheduler(model, example_inputs(info.input_shape))
    build(_by_epoch(schedule), model, optimizer, scheduler=scheduler, build_teacher=teachers)
    if checkpoint is not None and options.start.resume_from:
        with reading(str(options.start.resume_from)):
            scheduler.load_state_dict({**checkpoint["scheduler"], "policies": {}})
    _show(options, schedule, scheduler, optimizer)


def _show(options: Options, schedule: Schedule, scheduler: CompressionScheduler, optimizer: Optimizer) -> None:
    """Print policies, parameters, timeline and remarks."""
    model = scheduler.model
    found = acting(schedule, model)
    by_epoch = _by_epoch(schedule)
    epochs = end_of_training(options.training, by_epoch, None)
    walked = min(epochs, LONGEST)
    logger.info("%s", format_table(policies_table(found), options.output.table))
    if names := names_text(found):
        logger.info("%s", names)
    dense = size(scheduler)
    rows = timeline(scheduler, optimizer, walked) if by_epoch.policies else []
    if rows:
        logger.info("the network has {:,} parameters and {:,} MACs; as thinning would leave it:".format(*dense))
        logger.info("%s", format_table(timeline_table(rows), options.output.table))
        if walked < epochs:
            logger.warning("of %s epochs the timeline shows the first %s", f"{epochs:,}", f"{walked:,}")
    if rows:
        tell_account(scheduler)
    for remark in remarks(found, model, epochs):
        logger.warning("%s", remark)
    if options.output.plot and rows:
        _plot(options, found, rows, dense)


def _by_epoch(schedule: Schedule) -> Schedule:
    """Return the policies that count epochs: how many minibatches make one is not known without data."""
    return replace(schedule, policies=[plan for plan in schedule.policies if plan.window.unit == "epoch"])


def _plot(options: Options, found: Sequence[Acting], rows: Sequence[Epoch], dense: tuple[int, int]) -> None:
    """Draw the timeline into a run folder."""
    folder = RunFolder.new(options.output.out_dir, options.output.name)
    try:
        logger.info("wrote %s", ", ".join(str(path) for path in plot_timeline(found, rows, dense, folder.path)))
    finally:
        folder.close()
