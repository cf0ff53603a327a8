"""The options that say where a call starts, what it leaves, and what it does instead of training."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..exports import Export, exports
from .option import Group, of_this_call, option
from .option_types import count, count0, every, folder_name, formats, trajectory

SUMMARIES = ("sparsity", "compute", "model", "modules", "params", "channels", "png", "png_w_params")
PHASES = ("train", "valid", "test")
FORMS = ("text", "csv", "markdown", "json")


@dataclass(frozen=True)
class StartOptions(Group):
    """The checkpoint to start from."""

    TITLE: ClassVar[str] = "where to start"

    resume_from: Path | None = of_this_call(
        "--resume-from", metavar="PATH", type=Path, help="go on with a checkpoint or a run folder"
    )
    reset_optimizer: bool = of_this_call(
        "--reset-optimizer", default=False,
        help="with --resume-from: keep weights and masks, start at epoch 0 with a new optimizer",
    )  # fmt: skip
    exp_load_weights_from: Path | None = of_this_call(
        "--exp-load-weights-from", metavar="PATH", type=Path, help="start from a checkpoint's weights only"
    )

    @property
    def path(self) -> Path | None:
        """The checkpoint or run folder to start from, if any."""
        return self.resume_from or self.exp_load_weights_from

    @property
    def goes_on(self) -> bool:
        """Whether a run goes on where it stood, with its optimizer."""
        return self.resume_from is not None and not self.reset_optimizer

    def problem(self) -> str | None:
        """Return what is wrong with the options together, or None."""
        if self.resume_from and self.exp_load_weights_from:
            return "--resume-from continues a run, --exp-load-weights-from starts a new one: give one of them"
        return None


@dataclass(frozen=True)
class OutputOptions(Group):
    """What a run writes and shows."""

    TITLE: ClassVar[str] = "checkpoints and results"

    name: str | None = option(
        "--name", "-n", metavar="NAME", type=folder_name, help="name of the run, begins its folder's"
    )
    out_dir: Path = of_this_call(
        "--out-dir", "-o", metavar="DIR", type=Path, default=Path("runs"),
        help="folder that holds run folders (default: %(default)s); DIR/latest leads to the newest training",
    )  # fmt: skip
    checkpoint_every: str | None = option(
        "--checkpoint-every", type=every, metavar="N",
        help="also write a checkpoint every N minibatches or Nm minutes",
    )  # fmt: skip
    keep_checkpoints: int = option(
        "--keep-checkpoints", type=count0, default=0, metavar="N",
        help="keep the checkpoints of the last N epochs, as checkpoint_EPOCH.pt (default: the newest alone)",
    )  # fmt: skip
    num_best_scores: int = option("--num-best-scores", type=count, default=1, metavar="N", help="best epochs to print")
    best_by: str = option(
        "--best-by", choices=("sparsity", "top1"), default="sparsity",
        help="best.pt holds the most accurate of the sparsest epochs, or of all (default: %(default)s)",
    )  # fmt: skip
    final: str = option(
        "--final", choices=("last", "best"), default="last",
        help="thin the network of the last epoch, or of the most accurate one after compression was complete"
        " (default: %(default)s)",
    )  # fmt: skip
    test: bool = option(
        "--no-test", default=True,
        help="leave the test images alone: choices between runs are then made by the validation images only",
    )  # fmt: skip
    trajectory: str | None = option(
        "--trajectory", nargs="?", const="*", type=trajectory, metavar="PATTERN[:EVERY]",
        help="record parameters during training, every EVERY steps (default: all, every 10 or about 1,000 times a run)",
    )  # fmt: skip
    masks_sparsity: bool = option(
        "--masks-sparsity", default=False, help="print the tables of zeros and of masks after each epoch"
    )
    table: str = option("--table", choices=FORMS, default="text", help="form of sparsity tables (default: %(default)s)")
    print_freq: int = option(
        "--print-freq", "-p", type=count, default=10, metavar="N",
        help="minibatches between two updates of the progress bar (default: %(default)s)",
    )  # fmt: skip
    confusion: bool = option("--confusion", default=False, help="print the confusion matrix of the test images")
    act_stats: tuple[str, ...] = of_this_call(
        "--activation-stats", "--act-stats", nargs="+", choices=PHASES, default=(), metavar="PHASE",
        help="write statistics of all activations to activations_PHASE.csv: train, valid, test (slows the run down)",
    )  # fmt: skip
    save_untrained_model: bool = of_this_call(
        "--save-untrained-model", default=False, help="keep the network as it was before training, as untrained.pt"
    )
    exports: str | None = option(
        "--export", metavar="FORMAT[,FORMAT...]", type=formats,
        help=f"also write the thinned network as {', '.join(exports())}, or all, and check the files",
    )  # fmt: skip
    plot: bool = option("--plot", default=False, help='draw the metrics and the kept channels (extra "plot")')
    tensorboard: bool = option("--tensorboard", default=False, help="write events for TensorBoard (extra)")
    debug: bool = of_this_call("--debug", default=False, help="show where in the code an error arose")


@dataclass(frozen=True)
class ModeOptions(Group):
    """What is done instead of training."""

    TITLE: ClassVar[str] = "instead of training"

    evaluate: bool = of_this_call("--evaluate", "-e", default=False, help="test the network and stop")
    thinnify: bool = of_this_call("--thinnify", default=False, help="thin a checkpoint and stop")
    summary: tuple[str, ...] | None = of_this_call(
        "--summary", action="append", choices=SUMMARIES, metavar="KIND",
        help=f"print and stop (repeatable): {', '.join(SUMMARIES)}",
    )  # fmt: skip
    export: tuple[Export, Path] | None = field(default=None)
    """A format and a file; an option for each format is added by `add_exports`."""
    greedy: bool = option(
        "--greedy", default=False, help="remove the channels that cost least, step by step, and stop at a size"
    )
    import_distiller: Path | None = of_this_call(
        "--import-distiller", "--import-checkpoint", type=Path, metavar="FILE",
        help="make a checkpoint of one of Distiller's, or of a state dict, and stop",
    )  # fmt: skip
    import_sparseml: Path | None = of_this_call(
        "--import-sparseml", type=Path, metavar="FILE", help="print the schedule of a recipe of SparseML and stop"
    )
    dry_run: bool = of_this_call("--dry-run", default=False, help="check the schedule, show what it would do, and stop")
    compare: tuple[Path, ...] = of_this_call(
        "--compare", nargs="+", type=Path, default=(), metavar="RUN",
        help="print and draw what finished runs cost and reach (a sweep's folder stands for all of its runs), and stop",
    )  # fmt: skip
    write_schema: Path | None = of_this_call(
        "--write-schema", nargs="?", type=Path, const=Path("potstill.schema.json"), metavar="FILE",
        help="write the JSON Schema of schedules, with which editors complete and check them (default: %(const)s)",
    )  # fmt: skip

    @property
    def only_reads(self) -> bool:
        """Return whether a checkpoint is looked at and nothing is written beside it."""
        return bool(self.dry_run or self.summary or self.export)


def add_exports(group: argparse._ArgumentGroup) -> None:
    """Add `--export-<name>` for each format that is registered."""
    for name, export in exports().items():
        if export.lossy:  # it needs images of the data set
            continue

        def asked(text: str, export: Export = export) -> tuple[Export, Path]:
            return export, Path(text)

        group.add_argument(
            f"--export-{name}", dest="export", nargs="?", type=asked, const=(export, export.file), metavar="FILE",
            help=f"write the network {export.help} and stop (default: {export.file})",
        )  # fmt: skip
