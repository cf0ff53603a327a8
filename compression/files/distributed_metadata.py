"""The metadata of a `torch.distributed.checkpoint` folder, a pickle: looked through before torch loads them."""

from __future__ import annotations

import pathlib
import pickle
from collections import OrderedDict
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from .checked import CheckpointError

FILE = ".metadata"
RECORDS = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
"""Modules whose dataclasses and enumerations such a file is made of; nothing else of them is taken."""
OTHERS: dict[str, tuple[Any, ...]] = {
    "torch": (torch.Size,),
    "torch.serialization": (torch.serialization._get_layout,),
    "collections": (OrderedDict,),
    "pathlib": (pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath),
}


def check_metadata(folder: Path) -> None:
    """Check that the metadata of a folder hold nothing but records and plain data: torch's own reader runs the rest.

    Raises:
        CheckpointError: there are none, they are damaged, or they would run code.
    """
    path = folder / FILE
    if not path.is_file():
        raise CheckpointError(f"{folder}: holds no checkpoint of torch.distributed.checkpoint")
    try:
        with path.open("rb") as file:
            _Records(file).load()
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # damaged pickles fail in many ways, and each means the same
        raise CheckpointError(f"{path}: damaged ({type(error).__name__})") from error


class _Records(pickle.Unpickler):
    """Takes the names of records, and refuses all others before their modules are imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _member
        if module in RECORDS or module in OTHERS:
            found = super().find_class(module, name)
            is_record = isinstance(found, type) and (is_dataclass(found) or issubclass(found, Enum))
            if (module in RECORDS and is_record) or isinstance(found, torch.dtype) or found in OTHERS.get(module, ()):
                return found
        raise CheckpointError(f"would run {module}.{name}, which no checkpoint needs: it is refused")


def _member(kind: Any, name: Any) -> Enum:
    """Return a member of an enumeration, which the first versions of Python 3.11 store by `getattr`."""
    if isinstance(kind, type) and issubclass(kind, Enum) and name in kind.__members__:
        return kind[name]
    raise CheckpointError(f"would read {name!r} of {kind!r}, which no checkpoint needs: it is refused")
