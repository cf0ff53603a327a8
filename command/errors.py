"""What the user can mend: one line and exit status 2, without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from potstill.compression import CheckpointError, DistillationError
from potstill.compression.schedule import PluginError, ScheduleError
from potstill.models import ModelError
from potstill.models.datasets import DatasetError
from potstill.thinning import ThinningError


class UsageError(ValueError):
    """Options that do not fit together, or do not fit the files that they name."""


class TrainingError(RuntimeError):
    """Training cannot go on."""


USER_ERRORS = (
    CheckpointError,
    DatasetError,
    DistillationError,
    ModelError,
    PluginError,
    ScheduleError,
    ThinningError,
    TrainingError,
    UsageError,
    OSError,
    torch.cuda.OutOfMemoryError,
)


@contextmanager
def one_line(debug: bool) -> Iterator[None]:
    """Turn the user's errors into a message and exit status 2; with `debug` let them through."""
    try:
        yield
    except USER_ERRORS as error:
        if debug:
            raise
        print(f"compress-classifier: {_text(error)}", file=sys.stderr)
        raise SystemExit(2) from None


def _text(error: Exception) -> str:
    """What an error says; of the system's and of torch's what a user understands."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error).splitlines()[0] if isinstance(error, torch.cuda.OutOfMemoryError) else str(error)
