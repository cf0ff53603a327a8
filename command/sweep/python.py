"""Sweeps from Python: the same as on the command line, with its options as a list of texts."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..cli.options import parse
from .mode import Result, sweep_runs

logger = logging.getLogger("potstill")


def sweep(
    arguments: Sequence[str],
    axes: Mapping[str, Sequence[Any]],
    *,
    within: float | None = None,
    jobs: int = 1,
    most_runs: int = 8,
) -> Result:
    """Train from one dense network with each combination of values in the schedule.

    Args:
        arguments: of the command line, for every run: `["--arch", "googlenet_cifar", "--compress", "my.yaml"]`.
        axes: values by their path in the schedule: `{"gates.target_sparsity": [0.3, 0.5, 0.7]}`.
        within: look between the two values for the smallest network that loses at most so many points of the dense
            one's validation accuracy.
        jobs: how many runs at a time, a process each.
        most_runs: of a search.

    Returns:
        The runs, with `compare` of `potstill.command.compare` for their table, and what was chosen.

    Raises:
        ScheduleError: a schedule has mistakes; nothing was trained.
        UsageError: a path leads nowhere; nothing was trained.
        SystemExit: an argument is none of the command line's, or Ctrl-C.
    """
    import compress_classifier

    asked = [part for key, values in axes.items() for part in ("--sweep", f"{key}={json.dumps(list(values))[1:-1]}")]
    search = [] if within is None else ["--within", str(within)]
    more = ["--sweep-jobs", str(jobs), "--sweep-runs", str(most_runs)]
    options = parse([*arguments, *asked, *search, *more])
    with _logged():
        return sweep_runs(options, compress_classifier.train_again, compress_classifier.__file__)


@contextmanager
def _logged() -> Iterator[None]:
    """Let run folders keep their logs; afterwards the logger is as it was."""
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
