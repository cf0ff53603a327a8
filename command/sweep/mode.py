"""`--sweep`: one dense network, a run for each point, a table and a picture; `--within`: the smallest that is good."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from potstill.compression.schedule import load_schedule
from potstill.thinning.files.regular import make_folder, must_be_regular

from ..cli.options import Options
from ..cli.output_options import StartOptions
from ..cli.sweep_options import FILE, Axis, SweepOptions, stored_sweep
from ..compare.mode import write_comparison
from ..compare.stored import SUMMARY, StoredRun, read_run
from ..errors import TrainingError, UsageError
from ..report import write_comparison_report
from ..report.render import places
from ..run.folder import RunFolder
from ..run.model_and_data import described, load_data, start_checkpoint
from ..run.ranks import started
from .checks import Checked, check, check_all, departs, minibatches
from .dense_start import DENSE, Plan, begin_dense, begin_point
from .networks import side_by_side, test_accuracies
from .points import data_of, grid, point
from .run_folders import Runner, Train
from .search import Search

logger = logging.getLogger("potstill")


@dataclass(frozen=True)
class Result:
    """What a sweep came to.

    Attributes:
        folder: of the sweep.
        runs: the dense network and all finished points.
        chosen: what `--within` chose, or None.
        failures: why points ended without a result, by name.
    """

    folder: Path
    runs: list[StoredRun]
    chosen: StoredRun | None
    failures: dict[str, str]


def sweep_runs(options: Options, train: Train, program: str) -> Result:
    """Carry out a sweep, or what is left of one; on Ctrl-C say how to go on, with exit status 130.

    Args:
        options: of all runs, with those of the sweep.
        train: does what the command line does with some arguments; returns its exit status.
        program: the file of the command line, for runs in processes of their own.

    Raises:
        ScheduleError: a point's schedule has mistakes.
        UsageError: a path leads nowhere in the schedule, or a sweep goes on otherwise than it began.
        TrainingError: the dense network could not be trained.
    """
    if started() > 1:
        raise UsageError("--sweep is for one process: --sweep-jobs N carries out several runs at a time")
    if not options.compression.compress:
        raise UsageError("--sweep sets values of a schedule: --compress FILE")
    goes_on = options.start.resume_from if options.start.resume_from and options.start.resume_from.is_dir() else None
    if options.sweep.within is not None:
        options = replace(options, output=replace(options.output, test=False))
    checked, plan = _planned(options, goes_on)
    folder = RunFolder(goes_on) if goes_on else RunFolder.new(options.output.out_dir, options.output.name or "sweep")
    try:
        plan = replace(plan, folder=folder.path)
        if not goes_on:
            _begin(plan, folder)
        again = [part for plugin in options.compression.plugin for part in ("--plugin", str(plugin))]  # they are code
        runner = Runner(train, program, again, options.sweep.sweep_jobs)
        return _Sweep(plan, folder, checked, runner).result()
    except KeyboardInterrupt:
        if not (folder.path / FILE).exists():
            folder.discard()
            raise
        logger.info("stopped; go on with: compress-classifier --resume-from %s", folder.path)
        raise SystemExit(130) from None
    except BaseException:
        if not (folder.path / FILE).exists():
            folder.discard()
        raise
    finally:
        folder.close()


def _planned(options: Options, goes_on: Path | None) -> tuple[list[Checked], Plan]:
    """Return the points of the grid (with `--within` the ends), all of them checked, and the plan without its folder.

    Raises:
        UsageError: a sweep that goes on is asked for something else than it began with.
    """
    if goes_on is not None:
        dense = must_be_regular(make_folder(goes_on / DENSE) / "checkpoint.pt")
        options = replace(options, start=StartOptions(exp_load_weights_from=dense))
    checkpoint = start_checkpoint(options)
    data = load_data(options, checkpoint, described(options, checkpoint))
    schedule = load_schedule(options.compression.compress or "", None)
    written = data_of(schedule)
    points = list(grid(written, options.sweep.axes))
    base = check(replace(points[0], name=DENSE, values={}, data=written), options, data)
    checked = check_all(points, options, data)
    parting = departs([base, *checked], minibatches(options, data))
    if goes_on is not None:
        _must_fit(options, stored_sweep(goes_on), parting)
    return checked, Plan(goes_on or Path(), options, data, base, parting, schedule.text)


def _must_fit(options: Options, stored: dict[str, Any], parting: int) -> None:
    before = {name: value.value for name, value in stored["options"].items()}
    free = {"table", "compress", "test"}
    other = [
        name for name, value in options.kept().items() if name in before and name not in free and before[name] != value
    ]
    if other:
        raise UsageError(f"a sweep goes on as it began: leave out --{other[0].replace('_', '-')}, or begin another one")
    if parting != stored["departs"]:
        began = f"its runs part from the dense network at epoch {stored['departs']}, and with these values at {parting}"
        raise UsageError(f"{began}: begin another sweep")


def _begin(plan: Plan, folder: RunFolder) -> None:
    """Write what a later call needs to go on; last of all, what makes the folder a sweep's."""
    folder.write_text("schedule.yaml", plan.text)
    begin_dense(plan)
    asked = asdict(plan.options.sweep)
    folder.write_json(FILE, {"options": plan.options.kept(), "departs": plan.departs, **asked})
    folder.lead()


class _Sweep:
    """The runs of a sweep."""

    def __init__(self, plan: Plan, folder: RunFolder, checked: Sequence[Checked], runner: Runner) -> None:
        self.plan, self.folder, self.checked, self.runner = plan, folder, list(checked), runner
        self.asked: SweepOptions = plan.options.sweep
        self.points: dict[Path, Checked] = {}

    def result(self) -> Result:
        """Train what is not trained yet, and report."""
        self.runner.run([self.plan.dense])
        if not (self.plan.dense / SUMMARY).exists():
            raise TrainingError(f"the dense network: {self.runner.failures.get(self.plan.dense, 'has no summary')}")
        chosen = None
        if self.asked.within is None:
            self._train(self.checked)
        else:
            chosen = self._search(self.asked.axes[0], self.asked.within)
        runs = side_by_side(self.plan.options, [read_run(self.plan.dense, DENSE), *self._finished()])
        written = write_comparison(runs, self.folder, self.plan.options.output.table, "sweep")
        told = [f"Asked: {text}" for text in self.asked.sweep]
        if self.asked.within is not None:
            told.append(self._choice(chosen))
            logger.info("%s", told[-1])
        failures = {folder.name: reason for folder, reason in self.runner.failures.items()}
        written.append(write_comparison_report(self.folder.path, runs, told, failures))
        logger.info("wrote %s", ", ".join(map(str, written)))
        return Result(self.folder.path, runs, chosen, failures)

    def _train(self, points: Sequence[Checked]) -> list[StoredRun | None]:
        """Train points; return their results, None where a run failed."""
        folders = [begin_point(self.plan, one, self.runner.threads) for one in points]
        self.points.update(zip(folders, points, strict=True))
        self.runner.run(folders)
        return [self._read(folder) for folder in folders]

    def _read(self, folder: Path) -> StoredRun | None:
        point = self.points[folder].point
        return read_run(folder, point.name, point.values) if (folder / SUMMARY).exists() else None

    def _finished(self) -> list[StoredRun]:
        return [run for run in map(self._read, self.points) if run is not None]

    def _search(self, axis: Axis, within: float) -> StoredRun | None:
        """Return the smallest network that was found within so many points of the dense one."""
        dense = read_run(self.plan.dense).thinned.val_top1 or 0.0
        ends = (axis.values[0], axis.values[1])
        macs = "macs" in axis.key
        search = Search[StoredRun](
            ends,
            size=lambda run: run.thinned.macs if macs else run.thinned.parameters,
            good=lambda run: (run.thinned.val_top1 or 0.0) >= dense - within,
            most=self.asked.sweep_runs,
            at_once=self.asked.sweep_jobs,
        )
        tried: dict[float, StoredRun | None] = {}
        while values := search.next(tried):
            tried.update(zip(values, self._train([self._checked(axis.key, value) for value in values]), strict=True))
        best = search.best(tried)
        return None if best is None else tried[best]

    def _checked(self, key: str, value: float) -> Checked:
        """Return the point of a value that the search has come to."""
        found = point(self.plan.base.point.data, {key: value})
        known = {one.point.name: one for one in self.checked}
        return known.get(found.name) or check(found, self.plan.options, self.plan.data)

    def _choice(self, chosen: StoredRun | None) -> str:
        """Return which network was chosen, what it reaches on the test images, and how many runs that took."""
        dense, runs = read_run(self.plan.dense, DENSE), len(self.points)
        reached, took = places(dense.thinned.val_top1), f"runs: {runs} and dense"
        near = f"within {self.asked.within:g} points of the dense one's {reached} % on validation images"
        if chosen is None:
            return f"no network is {near}; {took}"
        tested = test_accuracies(self.plan.options, [dense, chosen])
        accuracies = {"test_top1": tested[1], "dense_test_top1": tested[0]}
        self.folder.write_json(
            "chosen.json", {"run": chosen.name, "values": dict(chosen.values), "runs": runs, **accuracies}
        )
        parameters, macs = (
            100 * getattr(chosen.thinned, n) / max(getattr(chosen.dense, n), 1) for n in ("parameters", "macs")
        )
        return (
            f"{near}: {chosen.name} ({places(chosen.thinned.val_top1)} %), with {parameters:.1f} % of the parameters"
            f" and {macs:.1f} % of the MACs; test Top1 {tested[1]:.2f}, dense {tested[0]:.2f}; {took}"
        )


def last_words(result: Result) -> int:
    """Say which points failed; return the exit status."""
    for name, reason in result.failures.items():
        logger.error("%s failed: %s", name, reason)
    return 2 if result.failures else 0
