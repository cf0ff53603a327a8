"""Checkpoints: written whole or not at all, checked when read, and never able to run code."""

from __future__ import annotations

import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the layout; raised when a field changes its meaning."""

FIELDS = {"format": int, "epoch": int, "minibatch": int, "arch": str, "state_dict": dict}


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, or that is damaged, unsafe, or not one of ours."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file so that at any moment either the old or the new content stands under its name.

    Raises:
        CheckpointError: the file cannot be written; what stood there before is untouched.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise CheckpointError(f"{path}: cannot be written: {error}") from error


def save_checkpoint(path: Path, contents: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one that stood under the name before is kept beside it as `<name>.previous`.

    Args:
        path: the file.
        contents: tensors and plain data; `FIELDS` says what must be there (the format is added).

    Raises:
        CheckpointError: the file cannot be written.
    """
    temporary = path.with_name(path.name + ".new")
    write_atomically(temporary, lambda file: torch.save({"format": FORMAT, **contents}, file))
    try:
        if path.exists():
            os.replace(path, _previous(path))
        os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error}") from error
    _sync_folder(path.parent)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; where it is damaged, the previous one, with a warning.

    Raises:
        CheckpointError: there is none, or none that is sound.
    """
    try:
        return _load(path, device)
    except CheckpointError as error:
        if not _previous(path).exists():
            raise
        logger.warning("%s; using the one before it, %s", error, _previous(path))
        return _load(_previous(path), device)


def _load(path: Path, device: torch.device | str) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path}: damaged at {damaged} (its checksum is wrong)")
        contents = torch.load(path, map_location=device, weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # damaged archives fail in many ways, and each means the same
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: not a checkpoint of tensors and plain data: {reason}") from error
    return _checked(path, contents)


def _checked(path: Path, contents: Any) -> dict[str, Any]:
    if not isinstance(contents, dict):
        raise CheckpointError(f"{path}: holds a {type(contents).__name__}, not a checkpoint")
    for name, kind in FIELDS.items():
        if not isinstance(contents.get(name), kind):
            raise CheckpointError(f"{path}: its field {name!r} is missing or not of type {kind.__name__}")
    if contents["format"] != FORMAT:
        raise CheckpointError(f"{path}: format {contents['format']}; this version reads format {FORMAT}")
    for name, value in contents["state_dict"].items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path}: state_dict[{name!r}] is not a tensor")
    return contents


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; not every system can open a folder."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
