"""The options of network, data, training and compression: what a run is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch.optim import Optimizer

from potstill.models.datasets import augmentation_names, dataset_names

from .option import Group, of_this_call, option
from .option_types import (
    architecture,
    count,
    count0,
    dataset,
    decay,
    image_size,
    multiple,
    number,
    numbers,
    part,
    positive,
    rule,
    seed,
    share,
    workers,
)

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class DataOptions(Group):
    """The network, and the images that it learns from."""

    TITLE: ClassVar[str] = "network and data"

    arch: str = option(
        "--arch", "-a", default="resnet20_cifar", metavar="NAME", type=architecture,
        help="network (default: %(default)s); --arch list names all; also timm/NAME and transformers/FOLDER",
    )  # fmt: skip
    dataset: str = option(
        "--dataset", metavar="NAME", type=dataset, help=lambda: f"one of {', '.join(dataset_names())} (default: digits)"
    )
    dataset_given: bool = field(default=False)
    """Whether the data set was asked for; no option."""
    data: Path | None = option("--data", metavar="DIR", type=Path, help="folder of the data set")
    input_size: str | None = option(
        "--input-size", type=image_size, metavar="N|HxW", help="size of the images (default: the network's usual one)"
    )
    pretrained: bool = of_this_call(
        "--pretrained", default=False, help="begin with trained weights: torchvision's, timm's, or those of the folder"
    )
    workers: int = option(
        "--workers", "-j", type=workers, default=0, metavar="N", help="loader processes for large sets"
    )
    validation_split: float = option(
        "--validation-split", "--valid-size", "--vs", type=part, default=0.1, metavar="PART",
        help="part of the training images to validate on (default: %(default)s); 0 validates on the test images",
    )  # fmt: skip
    augmentation: str | None = option(
        "--augmentation", choices=augmentation_names(), help="of training images (default: the data set's)"
    )
    normalise: bool = option("--no-normalise", default=True, help="leave the images' values between 0 and 1")
    mean: str | None = option(
        "--mean", type=numbers, metavar="X[,X...]",
        help="normalise by this mean of each channel, in 0..1 (default: the checkpoint's, the network's or the data's)",
    )  # fmt: skip
    std: str | None = option(
        "--std", type=numbers, metavar="X[,X...]", help="and by this deviation: (value - mean) / deviation"
    )
    effective_train_size: float = option(
        "--effective-train-size", "--etrs", type=share, default=1.0, metavar="PART",
        help="part of the training images that each epoch draws anew (default: all)",
    )  # fmt: skip
    effective_valid_size: float = option(
        "--effective-valid-size", "--evs", type=share, default=1.0, metavar="PART", help="part of the validation images"
    )
    effective_test_size: float = option(
        "--effective-test-size", "--etes", type=share, default=1.0, metavar="PART", help="part of the test images"
    )
    limit_train: int | None = option("--limit-train", type=count, metavar="N", help="use only N train images")
    limit_validation: int | None = option(
        "--limit-validation", type=count, metavar="N", help="use only N validation images"
    )
    limit_test: int | None = option("--limit-test", type=count, metavar="N", help="use only N test images")


@dataclass(frozen=True)
class TrainingOptions(Group):
    """How the network learns."""

    TITLE: ClassVar[str] = "training"

    epochs: int | None = option(
        "--epochs", type=count0, metavar="N",
        help="train up to this epoch (default: to the end of the schedule, or 90 without one)",
    )  # fmt: skip
    batch_size: int = option("--batch-size", "-b", type=count, default=64, metavar="N", help="(default: %(default)s)")
    optimizer: str = option("--optimizer", choices=sorted(OPTIMIZERS), default="sgd", help="(default: %(default)s)")
    lr: float | None = option(
        "--learning-rate", "--lr", type=positive, metavar="X", help="(default: 0.1 for sgd, 0.001 for the others)"
    )
    momentum: float = option("--momentum", type=number, default=0.9, metavar="X", help="of sgd (default: %(default)s)")
    weight_decay: float = option(
        "--weight-decay", "--wd", type=number, default=1e-4, metavar="X", help="(default: %(default)s)"
    )
    warmup_epochs: int = option(
        "--warmup-epochs", type=count0, default=0, metavar="N",
        help="let the learning rate rise linearly to what it is set to, over so many epochs (default: none)",
    )  # fmt: skip
    label_smoothing: float = option(
        "--label-smoothing", type=part, default=0.0, metavar="PART",
        help="train on labels of which this part is shared among all classes (default: %(default)s)",
    )  # fmt: skip
    ema: float | None = option(
        "--ema", type=decay, metavar="DECAY",
        help="average the weights over the steps, by DECAY (0.999, for example); the average is what is validated, "
        "stored, thinned and exported",
    )  # fmt: skip
    device: str = option(
        "--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps ... (default: auto)"
    )
    sync_bn: bool = option(
        "--sync-bn", default=False, help="under torchrun on GPUs: statistics of BatchNorm over all processes' images"
    )
    amp: bool = option("--amp", default=False, help="bfloat16 where it is safe (torch.autocast)")
    seed: int = option("--seed", type=seed, default=0, metavar="N", help="(default: %(default)s)")
    early_stop: str | None = option(
        "--early-stop", type=rule, metavar="RULE",
        help="take the weights of the lowest validation loss: best (after all epochs), or stop by GL:alpha, PQ:alpha,k "
        "or UP:s (Prechelt 1998)",
    )  # fmt: skip
    on_nan: str = option(
        "--on-nan", choices=("stop", "skip"), default="stop",
        help="where loss or gradients are not finite: stop, or skip the step (default: %(default)s)",
    )  # fmt: skip
    deterministic: bool = option("--deterministic", "--det", default=False, help="only deterministic kernels")


@dataclass(frozen=True)
class CompressionOptions(Group):
    """What makes the network smaller."""

    TITLE: ClassVar[str] = "compression"

    compress: str | None = option(
        "--compress", metavar="FILE", help="schedule: a YAML file, or the name of a shipped one"
    )
    plugin: tuple[Path, ...] = option(
        "--plugin", action="append", default=(), type=Path, metavar="FILE.py",
        help="Python file that registers pruners, regularizers, policies, networks or data sets (repeatable)",
    )  # fmt: skip
    allow_inexact: bool = option(
        "--allow-inexact", default=False,
        help="thin also what changes the function a little, such as channels under a LayerNorm",
    )  # fmt: skip
    add_bias: bool = option(
        "--add-bias", default=False,
        help="give layers without a bias one, where it takes the constants of channels that go: more of them go",
    )  # fmt: skip
    round_to: int = option(
        "--round-to", metavar="N|auto", type=multiple, default=1,
        help="thin to multiples of N channels: often faster, though fewer parameters go; auto measures which, and which"
        " memory layout, is fastest",
    )  # fmt: skip
