"""The options of `--sense`, spelled as Distiller did where it had them."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from .option_types import positive

MOST_LEVELS = 1000
STRUCTURES = ("element", "filter", "channel")


def add_sensitivity_options(group: argparse._ArgumentGroup) -> None:
    """Add the options; `levels` reads the range."""
    group.add_argument(
        "--sense",
        choices=STRUCTURES,
        metavar="KIND",
        help="prune one weight at a time by element, filter or channel, test each, and stop",
    )
    group.add_argument(
        "--sense-range",
        nargs=3,
        type=float,
        default=[0.0, 0.95, 0.05],
        metavar=("START", "STOP", "STEP"),
        help="sparsities, STOP excluded (default: 0.0 0.95 0.05)",
    )
    group.add_argument(
        "--sense-weights", nargs="+", metavar="NAME", help="only these parameters: names or patterns (default: weights)"
    )
    group.add_argument(
        "--sense-on", choices=("test", "validation"), default="test", help="images to test on (default: %(default)s)"
    )
    group.add_argument(
        "--sense-loss",
        type=positive,
        default=1.0,
        metavar="POINTS",
        help="Top1 that the schedule in sensitivity.yaml may cost each weight (default: %(default)s)",
    )
    group.add_argument(
        "--sense-folder",
        type=Path,
        metavar="DIR",
        help="folder of the table; one that is not finished goes on (default: that of --resume-from, or a new one)",
    )


def problem(options: argparse.Namespace) -> str | None:
    """What is wrong with the range, or None."""
    start, stop, step = options.sense_range
    if not (0 <= start < stop <= 1 and 0 < step <= 1):  # never true of NaN
        return f"--sense-range {start:g} {stop:g} {step:g}: must be 0 <= START < STOP <= 1 and STEP above 0"
    if (stop - start) / step > MOST_LEVELS:
        return f"--sense-range {start:g} {stop:g} {step:g}: more than {MOST_LEVELS} sparsities"
    return None


def levels(options: argparse.Namespace) -> list[float]:
    """The sparsities of the range, in decimals: 0.15, where adding up steps gives 0.15000000000000002."""
    start, stop, step = options.sense_range
    count = math.ceil(round((stop - start) / step, 9))
    return [round(start + step * number, 10) for number in range(count)]
