"""Write files so that a crash at any moment leaves the old content or the new one, never a part."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from .regular import open_regular

PART = ".part"
ABANDONED = 3600
"""Seconds without a change after which a file that another machine wrote is removed."""
LONGEST = 180
"""Letters of a file's name in that of the file that is written: systems allow 255 together."""


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
            _replace(path, temporary, previous)
        except BaseException:  # Ctrl-C too
            temporary.unlink(missing_ok=True)
            raise
        remove_parts(path.parent, f"{path.name}.")
        if durable:
            sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise OSError(f"{path}: cannot be written: {reason(error)}") from error


def remove_parts(folder: Path, name: str = "") -> None:
    """Remove what writes that were cut off have left in a folder, of one file or of all."""
    for entry in os.scandir(folder):
        if entry.name.startswith(name[:LONGEST]) and entry.name.endswith(PART):
            with suppress(OSError):  # another process may do the same
                if _is_abandoned(entry):
                    (shutil.rmtree if entry.is_dir(follow_symlinks=False) else os.unlink)(entry.path)


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    """Return whether nobody writes a file any more: a process of this machine that ended, or none for long."""
    machine, _, process = entry.name.removesuffix(PART).rsplit(".", 2)[-2].rpartition("-")
    if machine == _machine() and process.isdecimal():
        return not _lives(int(process))
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > ABANDONED


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def _machine() -> str:
    return "".join(letter for letter in platform.node() if letter.isalnum())[:20]


def _part_of(path: Path) -> Path:
    """Return a name that no other writer has: it says who writes, and nobody can guess it."""
    return path.with_name(f"{path.name[:LONGEST]}.{_machine()}-{os.getpid()}.{secrets.token_hex(8)}{PART}")


def _replace(path: Path, new: Path, previous: Path | None) -> None:
    """Put a new file under a name; the old one is found under another name from then on, and until then under its own.

    The previous file goes last, for it may be the only sound one until the new one is in its place.
    """
    if previous is None or not path.is_file() or path.is_symlink():
        os.replace(new, path)
        return
    old = _part_of(previous)
    try:
        _give_second_name(path, old)
        os.replace(new, path)
        os.replace(old, previous)
    finally:
        old.unlink(missing_ok=True)  # where both names are of one file already, the system renames nothing


def _give_second_name(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except FileNotFoundError:  # another writer was faster
        return
    except (OSError, NotImplementedError):  # a file system without hard links
        with open_regular(path, "rb") as old, open_regular(other, "xb") as new:
            shutil.copyfileobj(old, new)
            new.flush()
            os.fsync(new.fileno())


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
