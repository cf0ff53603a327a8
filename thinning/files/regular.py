"""Open files of a folder that may be a stranger's: the file itself, never what a link or a pipe there leads to."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO, Any

FLAGS = {"r": os.O_RDONLY, "a": os.O_WRONLY | os.O_APPEND | os.O_CREAT, "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL}
# Not to wait for a pipe's other end, and not to go where a link leads; Windows has neither flag.
SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


LARGEST = 1 << 25
"""Bytes of a text that is read whole: the recipe of a network with 10,000 layers has a few million."""


class NotRegularError(OSError):
    """A link, a pipe or a device where a file should be."""

    def __init__(self, path: Path) -> None:
        """Say which, and what to do."""
        super().__init__(errno.ELOOP, "is a link or no regular file: remove it", str(path))

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def must_be_regular(path: Path) -> Path:
    """Return a path that is a regular file of its folder, or nothing yet.

    Raises:
        NotRegularError: it is a link, a pipe, a device or a folder.
    """
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise NotRegularError(path)
    return path


def must_be_file(path: Path) -> Path:
    """Return a path that is a regular file or a link to one, as caches of downloads hold them, or nothing.

    Raises:
        OSError: it leads to a pipe or a device, which may never end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return path


def open_regular(path: Path, mode: str, **text: Any) -> IO[Any]:
    """Open a regular file, without going through a link.

    A file that has other names too (hard links, which backups make) is copied before it is added to.

    Args:
        path: the file.
        mode: `r`, `a` or `x` (a new one), with `b` for bytes.
        text: encoding and how it treats errors.

    Raises:
        OSError: it cannot be opened; `NotRegularError` where something else stands under the name.
    """
    must_be_regular(path)
    if mode[0] == "a" and os.path.lexists(path) and path.lstat().st_nlink > 1:
        _copy_in_place(path)
    try:
        number = os.open(path, FLAGS[mode[0]] | SAFELY | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise (NotRegularError(path) if error.errno in (errno.ELOOP, errno.ENXIO) else error) from error
    if not stat.S_ISREG(os.fstat(number).st_mode):  # it was exchanged meanwhile
        os.close(number)
        raise NotRegularError(path)
    return open(number, mode.replace("x", "w"), **text)


def read_whole(path: Path, most: int = LARGEST, links: bool = False) -> bytes:
    """Return what a regular file holds, where it is no larger than files of its kind are.

    A file of a few blocks on the disk may say that it has terabytes.

    Args:
        path: the file.
        most: bytes of a file of its kind.
        links: whether the file may be a link, as caches of downloads hold them.

    Raises:
        OSError: it cannot be read, is larger, or something else stands under the name.
    """
    with must_be_file(path).open("rb") if links else open_regular(path, "rb") as file:
        content: bytes = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"has more than {most >> 20} MiB", str(path))
    return content


def make_folder(path: Path) -> Path:
    """Make a folder within a folder, if it is not there; return it.

    Raises:
        NotRegularError: a link stands under the name, or a file.
    """
    if path.is_symlink() or (os.path.lexists(path) and not path.is_dir()):
        raise NotRegularError(path)
    path.mkdir(exist_ok=True)
    return path


def _copy_in_place(path: Path) -> None:
    """Give a file of several names content of its own."""
    number, copy = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".part", dir=path.parent)
    with open(number, "wb") as new, path.open("rb") as old:
        shutil.copyfileobj(old, new)
    shutil.copymode(path, copy)
    os.replace(copy, path)
