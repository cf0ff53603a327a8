"""Write files so that a crash at any moment leaves the old content or the new one, never a part."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from .regular import open_regular

PART = ".part"
ABANDONED = 3600
"""Seconds without a change after which a file of a write that was cut off is removed."""


def write_atomically(
    path: Path,
    content: bytes | Callable[[IO[bytes]], object],
    durable: bool = True,
    previous: Path | None = None,
) -> None:
    """Write a file beside, then rename it: at any moment either the old or the new content stands under its name.

    That holds for any number of writers, for each writes under a name of its own, which nobody could know and prepare.

    Args:
        path: the file; a link that stands there is replaced, not followed.
        content: the bytes, or a function that writes them to an open file.
        durable: whether the content is forced onto the disk first, which takes tens of milliseconds on a hard disk.
            Without, a power failure may leave the old content, a killed process not.
        previous: where what stood there before is kept.

    Raises:
        OSError: the file cannot be written, with path and reason; what stood there before is untouched.
    """
    temporary = _part_of(path)
    try:
        try:
            # Opened like any other file: files of `tempfile` and of safetensors hide their content from other users.
            with open_regular(temporary, "xb") as file:
                file.write(content) if isinstance(content, bytes) else content(file)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            if previous is not None:
                _keep(path, previous)
            os.replace(temporary, path)
        except BaseException:  # Ctrl-C too
            temporary.unlink(missing_ok=True)
            raise
        remove_parts(path.parent, f"{path.name}.", ABANDONED)
        if durable:
            sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise OSError(f"{path}: cannot be written: {reason(error)}") from error


def remove_parts(folder: Path, name: str = "", age: float = 0) -> None:
    """Remove what writes that were cut off have left: files of a name's beginning, unchanged for `age` seconds."""
    for entry in os.scandir(folder):
        if entry.name.startswith(name) and entry.name.endswith(PART):
            with suppress(OSError):  # another process may do the same
                if time.time() - entry.stat(follow_symlinks=False).st_mtime >= age:
                    os.unlink(entry.path)


def _part_of(path: Path) -> Path:
    """Return a name that no other writer has."""
    return path.with_name(f"{path.name[:200]}.{secrets.token_hex(8)}{PART}")


def _keep(path: Path, previous: Path) -> None:
    """Let a file be found under another name too, while it never goes from its own."""
    other = _part_of(previous)
    try:
        os.link(path, other, follow_symlinks=False)
        os.replace(other, previous)
    except FileNotFoundError:  # there is none yet
        return
    except (OSError, NotImplementedError):  # no hard links here: for a moment only the previous one is there
        os.replace(path, previous)
    finally:
        other.unlink(missing_ok=True)  # where both names are of one file already, the system renames nothing


def sync_folder(folder: Path) -> None:
    """Make a rename durable; not every system can open a folder."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def reason(error: BaseException) -> str:
    """Return an error's first line; where torch only says that a write failed, that of the system's error behind it."""
    system = error if isinstance(error, OSError) else error.__context__
    text = system.strerror if isinstance(system, OSError) and system.strerror else str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
