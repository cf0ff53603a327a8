"""The one dense network that all points of a sweep begin with, and how a point's run folder is made of it.

Up to the epoch at which the first of them compresses, all points do the same: that is trained once, in `dense/`. Each
point goes on with its checkpoint, under a schedule of its own, and ends as it would have alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from potstill.compression import load_checkpoint, save_checkpoint
from potstill.compression.files.checked import Field, reading
from potstill.compression.files.checkpoints import write_atomically
from potstill.models.datasets import DataBundle
from potstill.thinning.files.regular import make_folder, must_be_regular

from ..cli.options import Options
from ..run.prepare import prepare
from .checks import Checked, without_compression
from .points import Point

logger = logging.getLogger("potstill")

DENSE, START = "dense", "start.pt"


@dataclass(frozen=True)
class Plan:
    """What a sweep is.

    Attributes:
        folder: of the sweep.
        options: of all its runs, but for the schedule.
        data: that they train on.
        base: the schedule as it was written, checked.
        departs: the epoch at which points part from the dense network; 0 where they do at once.
        text: of the schedule's file.
    """

    folder: Path
    options: Options
    data: DataBundle
    base: Checked
    departs: int
    text: str

    @property
    def dense(self) -> Path:
        """The folder of the dense network."""
        return self.folder / DENSE


def begin_dense(plan: Plan) -> int:
    """Make the folder of the dense network, with its checkpoint before training; return the epoch it starts at.

    It is trained up to the epoch at which points depart. Where they depart untrained, it is trained as long as they
    are, without compression: to compare with.
    """
    make_folder(plan.dense)
    data = without_compression(plan.base.point.data, plan.base.schedule)
    if data is not None:
        write_atomically(plan.dense / "schedule.yaml", Point(DENSE, {}, data).text.encode())
    run = prepare(_dense_options(plan, data is not None))
    try:
        untrained = not run.trained and max(plan.departs, run.epoch) == 0
        epochs = plan.base.epochs if untrained else max(plan.departs, run.epoch)
        run.options = replace(run.options, training=replace(run.options.training, epochs=epochs))
        if plan.departs == 0:
            run.save(plan.dense / START)
        run.save()
    finally:
        run.folder.close()
    if untrained and plan.base.epochs:
        logger.info("the schedule compresses from the start: runs begin untrained; dense is trained to compare with")
    return run.epoch


def _dense_options(plan: Plan, scheduled: bool) -> Options:
    """Return the options of the dense network's run: nothing that chooses among epochs."""
    options = plan.options
    schedule = str(plan.dense / "schedule.yaml") if scheduled else None
    training = replace(options.training, early_stop=None)
    if options.distillation.kd_teacher and options.distillation.kd_start_epoch >= plan.departs > 0:
        options = replace(options, distillation=replace(options.distillation, kd_teacher=None))
    return replace(
        options,
        folder=plan.dense,
        training=training,
        compression=replace(options.compression, compress=schedule),
        output=replace(options.output, trajectory=None, final="last"),
    )


def begin_point(plan: Plan, checked: Checked, threads: int) -> Path:
    """Make a point's run folder, which goes on where the dense network stands; return it.

    A folder that has a checkpoint is left as it is.
    """
    folder = make_folder(plan.folder / checked.point.name)
    if must_be_regular(folder / "checkpoint.pt").exists():
        return folder
    write_atomically(folder / "schedule.yaml", checked.point.text.encode())
    start = must_be_regular(plan.dense / START)
    state = load_checkpoint(start if start.exists() else must_be_regular(plan.dense / "checkpoint.pt"))
    compression = replace(plan.options.compression, compress=str(folder / "schedule.yaml"))
    with reading(str(folder)):
        known = Field(state)
        state["options"] = replace(plan.options, compression=compression).kept()
        state["surroundings"] = {**known["surroundings"].value, "threads": threads}
        state["scheduler"]["classes"] = {**known["scheduler"]["classes"].value, **_new(checked, known)}
    save_checkpoint(folder / "checkpoint.pt", state)
    return folder


def _new(checked: Checked, state: Field) -> Mapping[str, str]:
    """Return the policies that the dense network did without: nobody need be told that they begin afresh."""
    stored = state["scheduler"]["policies"].mapping()
    return {name: acts for name, acts in checked.classes.items() if name not in stored}
