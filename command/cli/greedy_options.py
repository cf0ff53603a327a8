"""The options of `--greedy`, spelled as Distiller did where it had them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from .option import Group, option
from .option_types import count0, share

Policy = Literal["constant", "linear-grow"]


@dataclass(frozen=True)
class GreedyOptions(Group):
    """How far greedy pruning goes, and how the networks on the way are fine-tuned."""

    TITLE: ClassVar[str] = "greedy pruning (--greedy)"

    greedy_target_density: float | None = option(
        "--greedy-target-density", type=share, metavar="PART", help="multiply-adds to keep, of the first network's"
    )
    greedy_target_latency: float | None = option(
        "--greedy-target-latency", type=share, metavar="PART",
        help="latency of one image to keep, of the first network's, as measured here",
    )  # fmt: skip
    greedy_pruning_step: float = option(
        "--greedy-pruning-step", type=share, default=0.1, metavar="PART",
        help="part of coupled channels that goes in a step (default: %(default)s)",
    )  # fmt: skip
    greedy_ft_epochs: int = option(
        "--greedy-ft-epochs", type=count0, default=1, metavar="N",
        help="epochs that each candidate is fine-tuned for (default: %(default)s)",
    )  # fmt: skip
    greedy_finetuning_policy: Policy = option(
        "--greedy-finetuning-policy", choices=get_args(Policy), default="constant",
        help="images of these epochs: --effective-train-size, or a part that grows with what is removed",
    )  # fmt: skip
