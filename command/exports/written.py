"""Writing a network in a format, and checking that the file computes what the network computes."""

from __future__ import annotations

import copy
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from potstill.compression.distillation import logits_of
from potstill.compression.files.checkpoints import write_atomically
from potstill.thinning.files.text import is_text

from ..errors import UsageError
from .registry import TOLERANCE, Export, Runner

logger = logging.getLogger("potstill")
EXTRA = {"onnx", "onnxscript", "onnxruntime"}
"""What the extra "onnx" brings."""


@dataclass(frozen=True)
class Written:
    """A file that was written: where it is, its size, how far its outputs are from torch's, and what runs it."""

    path: Path
    bytes: int
    difference: float | None
    run: Runner | None


def write(export: Export, model: nn.Module, images: Tensor, path: Path, metadata: Mapping[str, str]) -> Written:
    """Write a network in a format and compare the file with the network.

    Args:
        export: the format.
        model: the network; it stays as it is.
        images: of shape (N, C, H, W), N >= 2.
        path: the file.
        metadata: texts about the network.

    Raises:
        UsageError: the format needs something that is not there, cannot hold this network, or computes otherwise.
    """
    require(export)
    plain, images = copy.deepcopy(model).cpu().eval(), images.cpu().contiguous()
    try:
        # In a folder of its own, then moved: whatever stands under the name, a link too, is replaced and not written to
        with _room_for(path) as room:
            name = path.name if is_text(path.name) else path.name.encode(errors="replace").decode()
            run = export.write(plain, images, room / name, metadata)
            # The file itself gets its name; what lies beside it keeps the one by which the file refers to it.
            files = [(file, path if file.name == name else path.parent / file.name) for file in room.iterdir()]
            size = sum(file.stat().st_size for file, _ in files)
            difference = None if run is None else _difference(plain, run, images)
            if difference is not None and not (export.lossy or difference <= TOLERANCE):
                raise UsageError(f"{path}: it computes something else than the network: difference {difference:.1e}")
            for file, place in files:
                if room.parent == path.absolute().parent:
                    os.replace(file, place)
                else:
                    write_atomically(place, file.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
    told = "not checked" if difference is None else f"difference to the network, relative: {difference:.1e}"
    logger.info("%s: written; %s", path, told)
    return Written(path, size, difference, run)


@contextmanager
def _room_for(path: Path) -> Iterator[Path]:
    """Make a folder to write a file in: beside it, so that it can be moved.

    Elsewhere where the name of its own folder is no text: torch ends the process (2.14), others raise.
    """
    beside, text = path.absolute().parent, is_text(path.absolute())
    prefix = f"{path.name}." if text else None
    with tempfile.TemporaryDirectory(suffix=".part", prefix=prefix, dir=beside if text else None) as folder:
        yield Path(folder)


def require(export: Export) -> None:
    """Say that a format cannot be written here.

    Raises:
        UsageError: packages are missing.
    """
    if missing := export.missing():
        way = '"potstill[onnx]"' if EXTRA.issuperset(missing) else " ".join(missing)
        raise UsageError(f"{export.file}: this format needs {', '.join(missing)}: pip install {way}")


@torch.no_grad()
def _difference(model: nn.Module, run: Runner, images: Tensor) -> float:
    """Return the largest difference over the largest output, on these images and on one alone: the batch is free."""
    worst = 0.0
    for part in (images, images[:1]):
        expected = logits_of(model(part), "network")
        worst = max(worst, float((run(part) - expected).abs().max() / expected.abs().max().clamp_min(1e-30)))
    return worst
