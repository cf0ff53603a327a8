"""Write files so that a crash at any moment leaves the old content or the new one, never a part."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_atomically(path: Path, content: bytes | Callable[[IO[bytes]], object], durable: bool = True) -> None:
    """Write a file beside, then rename it: at any moment either the old or the new content stands under its name.

    Args:
        path: the file.
        content: the bytes, or a function that writes them to an open file.
        durable: whether the content is forced onto the disk first, which takes tens of milliseconds on a hard disk.
            Without, a power failure may leave the old content, a killed process not.

    Raises:
        OSError: the file cannot be written, with path and reason; what stood there before is untouched.
    """
    temporary = path.with_name(path.name + ".part")  # one name, so that a killed process leaves one file at most
    try:
        try:
            # Opened like any other file: files of `tempfile` and of safetensors hide their content from other users.
            with temporary.open("wb") as file:
                file.write(content) if isinstance(content, bytes) else content(file)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # Ctrl-C too
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise OSError(f"{path}: cannot be written: {reason(error)}") from error


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
