"""The options of the command line, spelled as Distiller did where it had them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from potstill.models.datasets import augmentation_names, dataset_names

from ..run.optimizers import OPTIMIZERS
from .distillation_options import add_distillation_options, distillation_problem
from .distiller_options import add_distiller_options, translate
from .option_types import (
    architecture,
    count,
    count0,
    dataset,
    every,
    folder_name,
    number,
    positive,
    rule,
    seed,
    split,
    trajectory,
    workers,
)
from .plugins import add_plugin_option, load_plugins
from .sensitivity_options import add_sensitivity_options, problem
from .stored_options import stored_arguments

PROGRAM = "compress-classifier"
SUMMARIES = ("sparsity", "compute", "model", "modules", "params", "channels")
FORMS = ("text", "csv", "markdown", "json")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the list of all options."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def parser() -> argparse.ArgumentParser:
    """The parser; abbreviations of long options are allowed, as they always were."""
    top = _Parser(
        prog=PROGRAM,
        description="Train an image classifier under a compression schedule, thin it, prove it stayed the same.",
    )
    _data_and_model(top.add_argument_group("network and data"))
    _training(top.add_argument_group("training"))
    _compression(top.add_argument_group("compression"))
    add_distillation_options(top.add_argument_group("distillation"))
    _checkpoints(top.add_argument_group("checkpoints and results"))
    _modes(top.add_argument_group("instead of training"))
    add_sensitivity_options(top.add_argument_group("sensitivity analysis, instead of training"))
    add_distiller_options(top.add_argument_group("as Distiller had them"))
    return top


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check what argparse alone cannot: exits with status 2 and one line.

    A run folder given to `--resume-from` brings its own options; those given now go first.

    Raises:
        CheckpointError: the run folder has no sound checkpoint.
        PluginError: a plugin cannot be imported.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    load_plugins(_Parser(prog=PROGRAM, add_help=False), given)
    top = parser()
    options = top.parse_args(given)
    if options.resume_from and options.resume_from.is_dir():
        options = top.parse_args([*stored_arguments(top, options.resume_from, options.plugin), *given])
    translate(options)
    if options.resume_from and options.exp_load_weights_from:
        top.error("--resume-from continues a run, --exp-load-weights-from starts a new one: give one of them")
    if options.thinnify and not (options.resume_from or options.exp_load_weights_from):
        top.error("--thinnify needs the checkpoint to thin: --resume-from FILE")
    wrong = problem(options) or distillation_problem(options)
    if wrong:
        top.error(wrong)
    if options.dry_run and not (options.compress or options.kd_teacher):
        top.error("--dry-run shows a schedule: --compress FILE")
    return options


def _data_and_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--arch",
        "-a",
        default="resnet20_cifar",
        metavar="NAME",
        type=architecture,
        help="network (default: %(default)s); --arch list names all",
    )
    group.add_argument(
        "--dataset",
        metavar="NAME",
        type=dataset,
        help=f"one of {', '.join(dataset_names())} (default: digits)",
    )
    group.add_argument("--data", metavar="DIR", type=Path, help="folder of the data set")
    group.add_argument("--pretrained", action="store_true", help="torchvision's trained weights")
    group.add_argument("--workers", "-j", type=workers, default=0, metavar="N", help="loader processes for large sets")
    group.add_argument(
        "--validation-split",
        "--valid-size",
        "--vs",
        type=split,
        default=0.1,
        metavar="PART",
        help="part of the training images to validate on (default: %(default)s); 0 validates on the test images",
    )
    group.add_argument(
        "--augmentation", choices=augmentation_names(), help="of training images (default: the data set's)"
    )
    group.add_argument(
        "--no-normalise", dest="normalise", action="store_false", help="leave the images' values between 0 and 1"
    )
    for part in ("train", "validation", "test"):
        group.add_argument(f"--limit-{part}", type=count, metavar="N", help=f"use only N {part} images")


def _training(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--epochs",
        type=count0,
        metavar="N",
        help="train up to this epoch (default: to the end of the schedule, or 90 without one)",
    )
    group.add_argument("--batch-size", "-b", type=count, default=64, metavar="N", help="(default: %(default)s)")
    group.add_argument("--optimizer", choices=sorted(OPTIMIZERS), default="sgd", help="(default: %(default)s)")
    group.add_argument(
        "--learning-rate",
        "--lr",
        dest="lr",
        type=positive,
        metavar="X",
        help="(default: 0.1 for sgd, 0.001 for the others)",
    )
    group.add_argument("--momentum", type=number, default=0.9, metavar="X", help="of sgd (default: %(default)s)")
    group.add_argument("--weight-decay", "--wd", type=number, default=1e-4, metavar="X", help="(default: %(default)s)")
    group.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps ... (default: auto)"
    )
    group.add_argument("--cpu", dest="device", action="store_const", const="cpu", help="the same as --device cpu")
    group.add_argument("--amp", action="store_true", help="bfloat16 where it is safe (torch.autocast)")
    group.add_argument("--seed", type=seed, default=0, metavar="N", help="(default: %(default)s)")
    group.add_argument(
        "--early-stop",
        type=rule,
        metavar="RULE",
        help="take the weights of the lowest validation loss: best (after all epochs), or stop by GL:alpha, PQ:alpha,k "
        "or UP:s (Prechelt 1998)",
    )
    group.add_argument(
        "--on-nan",
        choices=("stop", "skip"),
        default="stop",
        help="where loss or gradients are not finite: stop, or skip the step (default: %(default)s)",
    )
    group.add_argument("--deterministic", "--det", action="store_true", help="only deterministic kernels")
    group.add_argument(
        "--print-freq",
        "-p",
        type=count,
        default=10,
        metavar="N",
        help="minibatches between two updates of the progress bar (default: %(default)s)",
    )


def _compression(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--compress", metavar="FILE", help="schedule: a YAML file, or the name of a shipped one")
    add_plugin_option(group)
    group.add_argument("--masks-sparsity", action="store_true", help="print the sparsity table after each epoch")
    group.add_argument("--table", choices=FORMS, default="text", help="form of sparsity tables (default: %(default)s)")
    group.add_argument(
        "--allow-inexact",
        action="store_true",
        help="thin also what changes the function a little, such as channels under a LayerNorm",
    )
    group.add_argument(
        "--round-to",
        metavar="N",
        type=count,
        default=1,
        help="thin to multiples of N channels: often faster, though fewer parameters go (compare the latencies)",
    )


def _checkpoints(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--resume-from", metavar="PATH", type=Path, help="go on with a checkpoint or a run folder")
    group.add_argument(
        "--reset-optimizer",
        action="store_true",
        help="with --resume-from: keep weights and masks, start at epoch 0 with a new optimizer",
    )
    group.add_argument(
        "--exp-load-weights-from", metavar="PATH", type=Path, help="start from a checkpoint's weights only"
    )
    group.add_argument("--name", "-n", metavar="NAME", type=folder_name, help="name of the run, begins its folder's")
    group.add_argument(
        "--out-dir",
        "-o",
        metavar="DIR",
        type=Path,
        default=Path("runs"),
        help="folder that holds run folders (default: %(default)s); DIR/latest leads to the newest training",
    )
    group.add_argument(
        "--checkpoint-every", type=every, metavar="N", help="also write a checkpoint every N minibatches or Nm minutes"
    )
    group.add_argument("--num-best-scores", type=count, default=1, metavar="N", help="best epochs to print")
    group.add_argument(
        "--best-by",
        choices=("sparsity", "top1"),
        default="sparsity",
        help="best.pt holds the most accurate of the sparsest epochs, or of all (default: %(default)s)",
    )
    group.add_argument(
        "--trajectory",
        nargs="?",
        const="*",
        type=trajectory,
        metavar="PATTERN[:EVERY]",
        help="record parameters during training, every EVERY steps (default: all, every 10 or about 1,000 times a run)",
    )
    group.add_argument("--plot", action="store_true", help='draw the metrics and the kept channels (extra "plot")')
    group.add_argument("--tensorboard", action="store_true", help="write events for TensorBoard (extra)")
    group.add_argument("--debug", action="store_true", help="show where in the code an error arose")


def _modes(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--evaluate", "-e", action="store_true", help="test the network and stop")
    group.add_argument("--thinnify", action="store_true", help="thin a checkpoint and stop")
    group.add_argument(
        "--summary",
        action="append",
        choices=SUMMARIES,
        metavar="KIND",
        help=f"print and stop (repeatable): {', '.join(SUMMARIES)}",
    )
    group.add_argument(
        "--export-onnx",
        nargs="?",
        type=Path,
        const=Path("model.onnx"),
        metavar="FILE",
        help='write the network as ONNX and stop (default: model.onnx; extra "onnx")',
    )
    group.add_argument(
        "--import-distiller", type=Path, metavar="FILE", help="make a checkpoint of one of Distiller's and stop"
    )
    group.add_argument("--dry-run", action="store_true", help="check the schedule, show what it would do, and stop")
    group.add_argument(
        "--write-schema",
        nargs="?",
        type=Path,
        const=Path("potstill.schema.json"),
        metavar="FILE",
        help="write the JSON Schema of schedules, with which editors complete and check them (default: %(const)s)",
    )
