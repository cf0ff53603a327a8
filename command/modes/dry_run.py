"""`--dry-run`: the resolved schedule, without data: what acts when, on which parameters, at what learning rate."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch.optim import Optimizer

from potstill.compression import CompressionScheduler, build, format_table
from potstill.compression.account import tell_account
from potstill.compression.files.checked import reading
from potstill.compression.language.plan import target
from potstill.compression.schedule import Schedule
from potstill.compression.timeline import Epoch, by_epoch, course_table, size, timeline, timeline_table
from potstill.plots.style import save
from potstill.plots.timeline import Act
from potstill.plots.timeline import timeline as draw_timeline

from ..cli.options import Options
from ..plots import require_matplotlib
from ..run.averages import with_options
from ..run.folder import RunFolder
from ..run.model_and_data import build_model, class_count_of, described, example_inputs, start_checkpoint
from ..run.optimizers import make_optimizer
from ..run.prepare import read_schedule
from ..run.randomness import seed_everything
from ..run.teachers import Teachers, with_teacher
from ..run.training_end import end_of_training
from .policy_table import Acting, acting, names_text, policies_table, remarks

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
    schedule = with_options(options.training, schedule, end_of_training(options.training, by_epoch(schedule), None))
    optimizer = make_optimizer(options.training, model)
    scheduler = CompressionScheduler(model, example_inputs(info.input_shape))
    build(by_epoch(schedule), model, optimizer, scheduler=scheduler, build_teacher=teachers)
    if checkpoint is not None and options.start.resume_from:
        with reading(str(options.start.resume_from)):
            scheduler.load_state_dict({**checkpoint["scheduler"], "policies": {}})
    _show(options, schedule, scheduler, optimizer)


def _show(options: Options, schedule: Schedule, scheduler: CompressionScheduler, optimizer: Optimizer) -> None:
    """Print policies, parameters, timeline and remarks."""
    model = scheduler.model
    found = acting(schedule, model)
    counted = by_epoch(schedule)
    epochs = end_of_training(options.training, counted, None)
    walked = min(epochs, LONGEST)
    logger.info("%s", format_table(policies_table(found), options.output.table))
    if names := names_text(found):
        logger.info("%s", names)
    dense = size(scheduler)
    rows = timeline(scheduler, optimizer, walked) if counted.policies else []
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


def _plot(options: Options, found: Sequence[Acting], rows: Sequence[Epoch], dense: tuple[int, int]) -> None:
    """Draw the timeline into a run folder."""
    folder = RunFolder.new(options.output.out_dir, options.output.name)
    try:
        figure = draw_timeline([_act(one) for one in found], course_table(rows, dense))
        logger.info("wrote %s", ", ".join(map(str, save(figure, folder.path / "timeline"))))
    finally:
        folder.close()


def _act(one: Acting) -> Act:
    """Return what the picture shows of a policy: instance, how sparse, on how many parameters."""
    count = f"{len(one.names)} parameter{'s' if len(one.names) > 1 else ''}" if one.names else ""
    told = ", ".join(filter(None, (target(one.plan, one.instance), count)))
    return Act(one.plan.instance, one.plan.kind, one.plan.window, told)
