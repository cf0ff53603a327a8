"""The options of the command line, spelled as Distiller did where it had them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from potstill.compression import CheckpointError, load_checkpoint

from ..run.lock import hold
from ..run.ranks import leads
from .distillation_options import DistillationOptions
from .distiller_options import add_distiller_options, translate
from .greedy_options import GreedyOptions
from .option import Group
from .output_options import ModeOptions, OutputOptions, StartOptions, add_exports
from .plugins import load_plugins
from .sensitivity_options import SensitivityOptions
from .stored_options import stored_architecture, stored_network, stored_options
from .sweep_options import FILE, SweepOptions, is_sweep, stored_sweep
from .training_options import CompressionOptions, DataOptions, TrainingOptions

PROGRAM = "compress-classifier"
GROUPS: dict[str, type[Group]] = {
    "data": DataOptions,
    "training": TrainingOptions,
    "compression": CompressionOptions,
    "distillation": DistillationOptions,
    "start": StartOptions,
    "output": OutputOptions,
    "mode": ModeOptions,
    "greedy": GreedyOptions,
    "sensitivity": SensitivityOptions,
    "sweep": SweepOptions,
}


@dataclass(frozen=True)
class Options:
    """All options of a call.

    `checkpoint` holds the contents of the run folder that goes on, from which options were taken; `folder` is the one
    to use for a new run, where that is given.
    """

    data: DataOptions
    training: TrainingOptions
    compression: CompressionOptions
    distillation: DistillationOptions
    start: StartOptions
    output: OutputOptions
    mode: ModeOptions
    greedy: GreedyOptions
    sensitivity: SensitivityOptions
    sweep: SweepOptions
    checkpoint: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    folder: Path | None = None

    def kept(self) -> dict[str, Any]:
        """Return the options that a checkpoint holds: plain data by name."""
        return {name: value for group in GROUPS for name, value in getattr(self, group).kept().items()}

    def problem(self) -> str | None:
        """Return what is wrong with options of different groups, or of one, or None."""
        if self.mode.thinnify and self.start.path is None:
            return "--thinnify needs the checkpoint to thin: --resume-from FILE"
        if self.mode.dry_run and not (self.compression.compress or self.distillation.kd_teacher):
            return "--dry-run shows a schedule: --compress FILE"
        goals = (self.greedy.greedy_target_density, self.greedy.greedy_target_latency)
        if self.mode.greedy and goals == (None, None):
            return "--greedy needs a size to stop at: --greedy-target-density or --greedy-target-latency"
        if self.mode.greedy and self.compression.compress:
            return "--greedy decides by itself what goes when: leave --compress out, or prune by the schedule before"
        groups = (self.start, self.sensitivity, self.distillation, self.sweep)
        return self._misses() or next(filter(None, (group.problem() for group in groups)), None)

    def _misses(self) -> str | None:
        """Return what is asked for that something else takes away, or None."""
        if self.sweep.sweep and (self.mode != ModeOptions() or self.sensitivity.sense):
            return "--sweep trains: leave out what is done instead of training"
        untested = not self.output.test or self.sweep.within is not None
        if untested and (self.output.confusion or "test" in self.output.act_stats):
            return "--confusion and --act-stats test need the test images, which --no-test and --within leave alone"
        return None


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the list of all options."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n" if leads() else None)


def parser() -> argparse.ArgumentParser:
    """Return the parser; abbreviations of long options are allowed, as they always were."""
    top = _Parser(
        prog=PROGRAM,
        description="Train an image classifier under a compression schedule, thin it, prove it stayed the same.",
    )
    for group in GROUPS.values():
        group.add_to(top)
    add_exports(top.add_argument_group("exports, instead of training"))
    add_distiller_options(top.add_argument_group("as Distiller had them"))
    return top


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Parse and check what argparse alone cannot; exit with status 2 and one line where something is wrong.

    A run folder given to `--resume-from` brings its own options, a checkpoint its architecture; those given now go
    first.

    Raises:
        CheckpointError: the run folder has no sound checkpoint, or another process uses it.
        PluginError: a plugin cannot be imported.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    load_plugins(_Parser(prog=PROGRAM, add_help=False), given)
    top = parser()
    found, checkpoint = top.parse_args(given), None
    if found.resume_from and found.resume_from.is_dir() and not ModeOptions.of(found).only_reads:
        hold(found.resume_from)  # before its checkpoint is read, which another process may be about to replace
    if found.resume_from and is_sweep(found.resume_from):
        known = _sweep(found.resume_from, found)
        found = top.parse_args(given, argparse.Namespace(**known))
    elif found.resume_from and found.resume_from.is_dir():
        path = stored_network(found.resume_from, bool(found.export))
        checkpoint = load_checkpoint(path)
        known = stored_options(GROUPS.values(), path, checkpoint, found.plugin)
        found = top.parse_args(given, argparse.Namespace(**known))
    elif (start := found.resume_from or found.resume or found.exp_load_weights_from) is not None:
        path = stored_network(start, bool(found.export))
        with suppress(CheckpointError):  # said where it is used
            checkpoint = load_checkpoint(path)
        if checkpoint is not None:
            found = top.parse_args(given, argparse.Namespace(arch=stored_architecture(path, checkpoint)))
    translate(found)
    groups: dict[str, Any] = {name: group.of(found) for name, group in GROUPS.items()}
    options = Options(**groups, checkpoint=checkpoint)
    if (wrong := options.problem()) is not None:
        top.error(wrong)
    return options


def _sweep(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a sweep that goes on; values that are given now replace those of then.

    Raises:
        CheckpointError: its folder is damaged.
    """
    stored = stored_sweep(folder)
    options = {name: value.value for name, value in stored.pop("options").items()}
    known = stored_options(GROUPS.values(), folder / FILE, {"options": options}, given.plugin)
    del stored["departs"]
    return {**known, **stored, "sweep": [] if given.sweep else stored["sweep"]}
