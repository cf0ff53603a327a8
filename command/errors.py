"""What the user can mend: one line and exit status 2, without a traceback."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

import torch

from potstill.compression import CheckpointError, DistillationError
from potstill.compression.schedule import PluginError, ScheduleError
from potstill.models import ModelError
from potstill.models.datasets import DatasetError
from potstill.thinning import ThinningError
from potstill.thinning.files.text import Lines, printable, shown

from .cli.interrupts import INTERRUPTED, tell_stopped
from .run.ranks import first_to_say, leads, lost, rank

OUT_OF_MEMORY = re.compile(r"DefaultCPUAllocator|out of memory|bad_alloc|can't allocate memory", re.IGNORECASE)
ONE_IMAGE = "Expected more than 1 value per channel"
"""Torch's BatchNorm, of a minibatch of one image."""


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
    """Turn errors into a message and exit status 2, an interrupt into 130; with `debug` let errors through."""
    try:
        yield
    except KeyboardInterrupt:
        tell_stopped()
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        if debug:
            raise
        text = "another process of this run ended: see what it says" if lost(error) else text_of(error)
        if first_to_say(text):
            sys.stderr.write(f"compress-classifier{'' if leads() else f', rank {rank()}'}: {text}\n")
        raise SystemExit(2) from None


def text_of(error: Exception) -> str:
    """Return what an error says, on one line; of the system's and of torch's what a user understands."""
    if isinstance(error, ScheduleError):  # a line for each mistake
        return shown(Lines(error))
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return printable(str(error).splitlines()[0])
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error))):
        return "memory is out: a smaller --batch-size (-b), fewer images (--limit-train) or a smaller network need less"
    if isinstance(error, OSError) and error.strerror:
        return printable(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    if ONE_IMAGE in str(error):
        return "BatchNorm cannot be trained with a minibatch of one image: take more images, or another --batch-size"
    return printable(str(error) if isinstance(error, USER_ERRORS) else _unexpected(error))


def _unexpected(error: Exception) -> str:
    """Return what to say of an error that nobody thought of: what, and where."""
    told = (str(error).strip().splitlines() or [""])[0]
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}; " if frames else ""
    return f"{type(error).__name__}: {told} ({place}--debug shows how it came to this)"
