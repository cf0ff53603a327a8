"""Checkpoints: written whole or not at all, checked when read, and never able to run code."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from potstill.thinning.files import atomic
from potstill.thinning.files.atomic import reason

from .checked import CheckpointError, Field, check_plain, reading

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the layout; raised when a field changes its meaning."""

UNREADABLE = "not a checkpoint of tensors and plain data"
IMPORT = "compress-classifier --import-distiller FILE makes a checkpoint of one of Distiller's or of a state dict"
OLD_FILE = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""What files of torch before 1.6 begin with."""

DIRECTORY_BIT = 0x10
"""In the external attributes of a zip entry, as DOS had it."""


def write_atomically(
    path: Path,
    content: bytes | Callable[[IO[bytes]], object],
    durable: bool = True,
    previous: Path | None = None,
) -> None:
    """Write a file whole or not at all; see `thinning.files.atomic`.

    Raises:
        CheckpointError: the file cannot be written; what stood there before is untouched.
    """
    try:
        atomic.write_atomically(path, content, durable, previous)
    except OSError as error:
        raise CheckpointError(str(error)) from error


def save_checkpoint(path: Path, contents: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one that stood under the name before is kept beside it as `<name>.previous`.

    Args:
        path: the file.
        contents: tensors and plain data; `load_checkpoint` says what must be there (the format is added).

    Raises:
        CheckpointError: the file cannot be written.
    """
    write_atomically(path, lambda file: torch.save({"format": FORMAT, **contents}, file), previous=_previous(path))


def load_checkpoint(path: Path, device: torch.device | str = "cpu", warns: bool = True) -> dict[str, Any]:
    """Read a checkpoint; where it is damaged, the one before it, with a warning (which a second reader may leave out).

    Its fields `format`, `epoch`, `minibatch`, `arch` and `state_dict` (tensors by name, without NaN) are checked, and
    that the rest is tensors and plain data. Where hard links are missing, `<name>.previous` may be all that there is.

    Raises:
        CheckpointError: there is none, or none that is sound.
    """
    try:
        return _load(path, device)
    except CheckpointError as error:
        # Earlier versions left `<name>.new` where they were killed between two renames.
        beside = path.with_name(path.name + ".new"), _previous(path)
        others = [other for other in beside if other.is_file() and not other.is_symlink()]
        for other in others:
            try:
                contents = _load(other, device)
            except CheckpointError:
                continue
            if warns:
                logger.warning("%s; using %s instead", error, other)
            return contents
        if others:
            raise CheckpointError(f"{error}; {' and '.join(o.name for o in others)} is no better") from error
        raise


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain data, the old file or the new one, whenever it is killed.

    Raises:
        CheckpointError: it cannot be written.
    """
    write_atomically(path, lambda file: torch.save(state, file))


def load_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_state` wrote: tensors and plain data, nothing is executed.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it holds something else.
    """
    contents = _read(path, device)
    with reading(str(path)):
        if not isinstance(contents, dict):
            raise CheckpointError(f"holds a {type(contents).__name__}, not a state")
        check_plain(contents)
    return contents


def _load(path: Path, device: torch.device | str) -> dict[str, Any]:
    contents = _read(path, device)
    with reading(str(path)):
        return _checked(contents)


def _read(path: Path, device: torch.device | str) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        check_archive(path)
        return torch.load(path, map_location=device, weights_only=True)
    except CheckpointError:
        raise
    except PermissionError as error:
        raise CheckpointError(f"{path}: cannot be read: {reason(error)}") from error
    except Exception as error:  # damaged archives fail in many ways, and each means the same
        raise CheckpointError(f"{path}: {UNREADABLE}, or a damaged one; {IMPORT}") from error


def check_archive(path: Path) -> None:
    """Check the checksums of a zip file, and that it does not unpack to more than it is.

    Raises:
        CheckpointError: it is damaged, or would.
    """
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: {_no_archive(path)}")
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise CheckpointError(f"{path}: not a checkpoint: its entries are larger than the file")
        if any(name.endswith("constants.pkl") for name in archive.namelist()):
            raise CheckpointError(f"{path}: not a checkpoint but a TorchScript program")
        odd = [entry.filename for entry in archive.infolist() if not _is_plain_file(entry)]
        if odd:
            raise CheckpointError(f"{path}: damaged at {odd[0]} (it is compressed or a folder)")
        damaged = archive.testzip()
    if damaged is not None:
        raise CheckpointError(f"{path}: damaged at {damaged} (its checksum is wrong)")


def _no_archive(path: Path) -> str:
    if begins_as_zip(path):
        return "damaged: its end is missing"
    with path.open("rb") as file:
        return f"{UNREADABLE}; {IMPORT}" if file.read(len(OLD_FILE)) == OLD_FILE else UNREADABLE


def begins_as_zip(path: Path) -> bool:
    """Return whether a file begins like those that torch writes, be it whole or not."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _is_plain_file(entry: zipfile.ZipInfo) -> bool:
    """Return whether torch reads it.

    Of what its directory bit calls a folder it gives memory that was never written.
    """
    stored = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
    return stored and not entry.is_dir() and not entry.external_attr & DIRECTORY_BIT


def _checked(contents: Any) -> dict[str, Any]:
    if not isinstance(contents, dict):
        raise CheckpointError(f"holds a {type(contents).__name__}, not a checkpoint")
    if "format" not in contents and "minibatch" not in contents:
        raise CheckpointError(f"not a checkpoint of ours; {IMPORT}")
    fields = Field(contents)
    found = fields["format"].integer()
    if found != FORMAT:
        raise CheckpointError(f"format {found}; this version reads format {FORMAT}")
    check_plain(contents)
    fields.mapping()
    fields["epoch"].integer()
    fields["minibatch"].integer()
    fields["arch"].text()
    for field in fields["state_dict"].mapping().values():
        if bool(torch.isnan(field.tensor(finite=False)).any()):
            raise CheckpointError(f"{field.path}: has values that are not numbers (NaN)")
    return contents


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")
