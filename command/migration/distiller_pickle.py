"""Reads checkpoints that torch pickled, without running what their pickles ask for.

Distiller's checkpoints hold classes of Distiller and of torch (namedtuples of thinning, the optimizer's class), which
torch's `weights_only` reader refuses. Here every name that a pickle mentions becomes an inert record, but for a short
list of tensors' parts that this module makes itself. Files of torch before 1.6 (pickles in a row) and after (zip).
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potstill.compression import CheckpointError
from potstill.compression.files.checkpoints import begins_as_zip, check_archive

MAGIC = 0x1950A86A20F9469CFC6C
"""What files of torch before 1.6 begin with."""

DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class DamageError(pickle.UnpicklingError):
    """A file contradicts itself; said in words for users, unlike what unpicklers say."""


class Inert(dict[Any, Any]):
    """What stands for an object of a class that is not looked up: it takes everything and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take arguments and forget them."""
        super().__init__()

    def append(self, item: Any) -> None:
        """Forget an item of a list."""

    def extend(self, items: Any) -> None:
        """Forget items of a list."""


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    if not isinstance(storage, Tensor):
        raise DamageError("a tensor without values")
    return storage.as_strided(size, stride, storage.storage_offset() + offset)  # refuses what lies outside


def _parameter(data: Any, *rest: Any) -> Any:
    return data


KNOWN: dict[str, Any] = {
    "collections.OrderedDict": dict,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    **{f"torch.{name}": dtype for name, dtype in DTYPES.items()},
}

Storage = Callable[[torch.dtype, str, int], Tensor]
_PurePython: Any = pickle._Unpickler


class _Reader(_PurePython):
    """Unpickles plain data; `storage` gives the values of a tensor by dtype, key and number."""

    def __init__(self, file: io.BufferedIOBase, storage: Storage) -> None:
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """Return a name of the short list, else a class that does nothing. Nothing is imported."""
        return KNOWN.get(f"{module}.{name}") or type(str(name), (Inert,), {})

    def persistent_load(self, pid: Any) -> Tensor:
        """Return the values of a tensor, a view of them where an old file says so."""
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or type(count) is not int or count < 0:
            raise DamageError("a reference to something else than a tensor's values")
        values = self._storage(dtype, str(key), count)
        if view and view[0] is not None:
            _, offset, length = view[0]
            values = values[offset : offset + length]
        return values

    def load_build(self) -> None:
        """Drop what a pickle would set: objects have no state here."""
        self.stack.pop()

    dispatch = {**_PurePython.dispatch, pickle.BUILD[0]: load_build}  # noqa: RUF012


def read_pickled(path: Path) -> dict[str, Any]:
    """Return the mapping that torch.save wrote, of plain data, tensors and `Inert` records.

    Raises:
        CheckpointError: it cannot be read, or is something else.
    """
    try:
        found = _read_zip(path) if begins_as_zip(path) else _read_legacy(path)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or 'cannot be read'}") from error
    except DamageError as error:
        raise CheckpointError(f"{path}: not a checkpoint written by torch: {error}") from error
    except Exception as error:  # damaged pickles fail in many ways, and each means the same
        raise CheckpointError(f"{path}: not a checkpoint written by torch, or a damaged one") from error
    if type(found) is not dict:
        what = f"holds a {type(found).__name__}, not a checkpoint"
        raise CheckpointError(f"{path}: {what}; of a whole network save the state_dict(), where its class is known")
    return found


def _read_zip(path: Path) -> Any:
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        (main,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder, known = main.removesuffix("data.pkl"), dict[str, Tensor]()

        def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
            if key not in known:
                raw = bytearray(archive.read(f"{folder}data/{key}"))
                known[key] = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
            return known[key][:count]

        return _Reader(io.BytesIO(archive.read(main)), storage).load()


def _read_legacy(path: Path) -> Any:
    file = io.BytesIO(path.read_bytes())
    left, known = [path.stat().st_size], dict[str, Tensor]()

    def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
        if key not in known:
            left[0] -= count * dtype.itemsize
            if left[0] < 0:
                raise DamageError("its tensors are larger than the file")
            known[key] = torch.zeros(count, dtype=dtype)
        return known[key]

    magic, version, _ = (_Reader(file, storage).load() for _ in range(3))
    if magic != MAGIC or version != 1001:
        raise DamageError("it does not begin like one")
    found = _Reader(file, storage).load()
    for key in _Reader(file, storage).load():
        values = known[str(key)]
        if int.from_bytes(file.read(8), "little") != len(values):
            raise DamageError(f"the values of tensor {key} are of another number")
        raw = bytearray(file.read(values.nbytes))
        if len(raw) != values.nbytes:
            raise DamageError("it is cut off")
        if raw:
            values.copy_(torch.frombuffer(raw, dtype=values.dtype))
    return found
