"""One run folder, one process: a lock that the system takes back when its holder dies, however it dies."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from pathlib import Path
from typing import IO

from potstill.compression import CheckpointError
from potstill.thinning.files.regular import open_regular
from potstill.thinning.files.text import printable

from .ranks import leads

try:
    import fcntl
except ImportError:  # Windows: two processes are told apart by the user
    fcntl = None  # type: ignore[assignment]

FILE = "run.lock"
MOST = 200
_held: dict[Path, IO[str]] = {}


def hold(folder: Path) -> None:
    """Reserve a folder for this process, until `release` or the end of the process.

    Raises:
        CheckpointError: another process uses it; says which and since when.
        OSError: the folder cannot be written to.
    """
    if fcntl is None or not leads() or folder.resolve() in _held:
        return
    file = None
    while file is None or not _is_still(folder / FILE, file):  # its holder may remove it while we open it
        file = open_regular(folder / FILE, "a", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(f"{folder} is in use by {_holder(folder)}: wait for it, or stop it") from None
        except OSError:  # a file system without locks
            return
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
    file.flush()
    _held[folder.resolve()] = file


def release(folder: Path) -> None:
    """Let others use a folder."""
    file = _held.pop(folder.resolve(), None)
    if file is not None:
        (folder / FILE).unlink(missing_ok=True)
        file.close()


def release_all() -> None:
    """Let others use all folders that this process holds."""
    for folder in list(_held):
        release(folder)


def _is_still(path: Path, file: IO[str]) -> bool:
    """Return whether a name leads to an open file."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _holder(folder: Path) -> str:
    """Return what the holder wrote of itself."""
    try:
        with open_regular(folder / FILE, "r", encoding="utf-8", errors="replace") as file:
            return printable(file.read(MOST).strip()) or "another process"
    except OSError:  # it ends just now
        return "another process"
