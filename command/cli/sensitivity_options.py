"""The options of `--sense`, spelled as Distiller did where it had them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

from .option import Group, of_this_call
from .option_types import Number, positive

MOST_LEVELS = 1000
batch = Number(int, "a whole number from 1 to 4096", lambda value: value >= 1, most=4096)
Structure = Literal["element", "filter", "channel"]


@dataclass(frozen=True)
class SensitivityOptions(Group):
    """What a sensitivity analysis prunes and tests."""

    TITLE: ClassVar[str] = "sensitivity analysis, instead of training"

    sense: Structure | None = of_this_call(
        "--sense", choices=get_args(Structure), metavar="KIND",
        help="prune one weight at a time by element, filter or channel, test each, and stop",
    )  # fmt: skip
    sense_range: tuple[float, float, float] = of_this_call(
        "--sense-range", nargs=3, type=float, default=(0.0, 0.95, 0.05), metavar=("START", "STOP", "STEP"),
        help="sparsities, STOP excluded (default: 0.0 0.95 0.05)",
    )  # fmt: skip
    sense_weights: tuple[str, ...] | None = of_this_call(
        "--sense-weights", nargs="+", metavar="NAME", help="only these parameters: names or patterns (default: weights)"
    )
    sense_on: str = of_this_call(
        "--sense-on", choices=("test", "validation"), default="test", help="images to test on (default: %(default)s)"
    )
    sense_loss: float = of_this_call(
        "--sense-loss", type=positive, default=1.0, metavar="POINTS",
        help="Top1 that the schedule in sensitivity.yaml may cost each weight (default: %(default)s)",
    )  # fmt: skip
    sense_latency: int | None = of_this_call(
        "--sense-latency", type=batch, metavar="BATCH",
        help="order the weights by the points that each costs for a millisecond that it saves, at this batch size",
    )  # fmt: skip
    sense_folder: Path | None = of_this_call(
        "--sense-folder", type=Path, metavar="DIR",
        help="folder of the table; one that is not finished goes on (default: that of --resume-from, or a new one)",
    )  # fmt: skip

    def problem(self) -> str | None:
        """Return what is wrong with the range, or None."""
        start, stop, step = self.sense_range
        if not (0 <= start < stop <= 1 and 0 < step <= 1):  # never true of NaN
            return f"--sense-range {start:g} {stop:g} {step:g}: must be 0 <= START < STOP <= 1 and STEP above 0"
        if (stop - start) / step > MOST_LEVELS:
            return f"--sense-range {start:g} {stop:g} {step:g}: more than {MOST_LEVELS} sparsities"
        if self.sense_latency is not None and self.sense is None:
            return "--sense-latency is about a sensitivity analysis: add --sense filter or channel"
        if self.sense_latency is not None and self.sense == "element":
            return "--sense-latency: single weights that are 0 save no time; --sense filter or channel"
        return None

    def levels(self) -> list[float]:
        """Return the sparsities in decimals: 0.15, where adding up steps gives 0.15000000000000002."""
        start, stop, step = self.sense_range
        count = math.ceil(round((stop - start) / step, 9))
        return [round(start + step * number, 10) for number in range(count)]
