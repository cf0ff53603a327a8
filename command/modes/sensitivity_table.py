"""`sensitivity.csv`: written row by row, and taken up again after an interruption at any moment."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import yaml
from torch import Tensor

from potstill.compression.files.checkpoints import write_atomically
from potstill.compression.sensitivity import GROUP_TYPES
from potstill.thinning.files.checked import parse_json
from potstill.thinning.files.regular import must_be_regular, open_regular, read_whole
from potstill.thinning.files.text import csv_text

from ..errors import UsageError

HEADER = "parameter,sparsity,top1,top5,loss\n"
Row = tuple[str, float, float, float, float]
"""Parameter, sparsity, top1 and top5 (%), mean loss."""


@dataclass(frozen=True)
class Analysis:
    """What decides what the rows are: a table that goes on must have been begun with the same."""

    structure: str
    levels: list[float]
    parameters: list[str]
    arch: str
    weights: str
    images: str
    batch_size: int
    device: str


SOURCES = {
    "structure": "another structure (--sense)",
    "levels": "other sparsities (--sense-range)",
    "parameters": "other parameters (--sense-weights)",
    "arch": "another network (--arch)",
    "weights": "other weights (the checkpoint)",
    "images": "other images (--dataset, --data, --sense-on, --limit-test, ...)",
    "batch_size": "another batch size (--batch-size)",
    "device": "another kind of device (--device)",
}
"""What a field that differs means to the user."""


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and bits."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(values.view(torch.uint8).numpy().data)
    return found.hexdigest()


class SensitivityTable:
    """The table of one analysis in a folder, as far as it is.

    A row is one line, written at once. What stands behind the last line's end is half a row, and is dropped.
    """

    def __init__(self, folder: Path, analysis: Analysis) -> None:
        """Begin the table, or take it up.

        Raises:
            UsageError: a table of another analysis lies there, or one that was changed.
            CheckpointError: the folder cannot be written to.
        """
        self.path = must_be_regular(folder / "sensitivity.csv")
        self.description = must_be_regular(folder / "sensitivity.json")
        self.places = [(name, level) for name in analysis.parameters for level in analysis.levels]
        self.rows: list[Row] = []
        if self.path.exists() or self.description.exists():
            self._check(analysis)
        else:
            text = json.dumps(asdict(analysis), indent=1) + "\n"
            write_atomically(self.description, text.encode())
        kept = self._read(read_whole(self.path)) if self.path.exists() else b""
        with open_regular(self.path, "ab") as file:
            file.truncate(len(kept))
            if not kept:
                file.write(HEADER.encode())

    def append(self, row: Row) -> None:
        """Write the next row."""
        with open_regular(self.path, "ab") as file:
            file.write(csv_text([row]).encode())
        self.rows.append(row)

    def _check(self, analysis: Analysis) -> None:
        """Check that the table was begun by the same analysis."""
        try:
            theirs = parse_json(read_whole(self.description))
        except FileNotFoundError:
            raise self._refusal(f"{self.description.name}, which says how it was made, is missing") from None
        except ValueError:
            theirs = None
        if not isinstance(theirs, dict):
            raise self._refusal(f"{self.description.name}, which says how it was made, cannot be read")
        mine = asdict(analysis)
        other = [SOURCES[field.name] for field in fields(Analysis) if theirs.get(field.name) != mine[field.name]]
        if other:
            raise self._refusal(f"it was made with {' and '.join(other)}")

    def _read(self, content: bytes) -> bytes:
        """Take up the whole lines, and return them."""
        head, *lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True) or [b""]
        if head not in (b"", HEADER.encode()):
            raise self._refusal(f"its first line is not {HEADER.strip()}")
        for number, line in enumerate(lines):
            row = _row(line)
            if row is None or self.places[number : number + 1] != [row[:2]]:
                raise self._refusal(f"its line {number + 2} is none that this analysis wrote")
            self.rows.append(row)
        return b"".join([head, *lines])

    def _refusal(self, reason: str) -> UsageError:
        return UsageError(f"{self.path} cannot go on: {reason}; --sense-folder DIR begins another table")


def _row(line: bytes) -> Row | None:
    """Return the row of a line; None of one that is not as we write them."""
    try:
        text = line.decode()
        name, *numbers = next(csv.reader([text]))
        sparsity, top1, top5, loss = map(float, numbers)
    except (ValueError, csv.Error, StopIteration):
        return None
    row = (name, sparsity, top1, top5, loss)
    return row if csv_text([row]) == text else None


SCHEDULE_HEADER = """\
# Made by --sense {structure}: the sparsity of each weight up to which it costs, pruned alone, at most {loss:g} points
# of Top1 ({dense:.2f} % dense). Together they cost more: begin lower, or fine-tune.
"""


def schedule_text(structure: str, found: Mapping[str, float], dense: float, loss: float) -> str:
    """Return the schedule as YAML; empty where no weight may be pruned.

    Args:
        structure: `element`, `filter` or `channel`.
        found: sparsity by weight; those of 0 are left out.
        dense: Top1 of the dense network, told in the header.
        loss: the points of Top1 that each weight was allowed to cost, told too.
    """
    levels = {name: level for name, level in found.items() if level > 0}
    if not levels:
        return ""
    pruners: dict[str, dict[str, object]]
    if structure == "element":
        pruners = {"elements": {"class": "SparsityLevelParameterPruner", "levels": levels}}
    else:
        pruners = {f"{structure}s_{level:g}": _ranked(structure, level, levels) for level in sorted({*levels.values()})}
    policies = [{"pruner": {"instance_name": name}, "epochs": [0]} for name in pruners]
    body = yaml.safe_dump({"pruners": pruners, "policies": policies}, sort_keys=False, width=200)
    return SCHEDULE_HEADER.format(structure=structure, dense=dense, loss=loss) + body


def _ranked(structure: str, level: float, levels: Mapping[str, float]) -> dict[str, object]:
    return {
        "class": "L1RankedStructureParameterPruner",
        "desired_sparsity": level,
        "group_type": GROUP_TYPES[structure],
        "weights": [name for name, theirs in levels.items() if theirs == level],
    }
