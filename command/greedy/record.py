"""What a greedy run knows of itself: its first network's size, its steps, and what the present step has tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from potstill.compression import CheckpointError
from potstill.compression.files.checked import Field, reading
from potstill.thinning.files.checked import parse_json
from potstill.thinning.files.regular import must_be_regular, read_whole
from potstill.thinning.files.text import csv_text

from ..run.folder import RunFolder
from .search import Tried

FILE = "greedy.json"
T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """Multiply-adds of one image, and milliseconds for it (0 where nobody asked)."""

    macs: int
    latency: float


@dataclass(frozen=True)
class Step:
    """What one step removed, and what it left: sizes as parts of the first network's."""

    iteration: int
    name: str
    removed: int
    top1: float
    top5: float
    loss: float
    macs: int
    density: float
    latency: float


@dataclass
class Record:
    """Kept in `greedy.json`, whole at any moment; `greedy.csv` has a row for each step."""

    first: Size
    steps: list[Step] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)

    @classmethod
    def of(cls, folder: RunFolder) -> Record | None:
        """Return what a run folder holds, or None.

        Raises:
            CheckpointError: it is damaged.
        """
        path = must_be_regular(folder.path / FILE)
        if not path.exists():
            return None
        with reading(str(path)):
            state = Field(parse_json(read_whole(path)))
            return cls(
                _read(Size, state["first"]),
                [_read(Step, step) for step in state["steps"].items()],
                [_read(Tried, tried) for tried in state["tried"].items()],
            )

    def write(self, folder: RunFolder) -> None:
        """Write both files."""
        folder.write_json(FILE, {**asdict(self)})
        names = [item.name for item in fields(Step)]
        folder.write_text("greedy.csv", csv_text([names, *(list(asdict(step).values()) for step in self.steps)]))


def _read(cls: Callable[..., T], state: Field) -> T:
    """Return a dataclass of texts and numbers."""
    kinds: dict[str, Callable[[Field], Any]] = {"str": Field.text, "int": Field.integer, "float": Field.number}
    named = fields(cls)  # type: ignore[arg-type]
    state.only([item.name for item in named])
    return cls(**{item.name: kinds[str(item.type)](state[item.name]) for item in named})


def must_fit(record: Record, iteration: int) -> None:
    """Check that the record is of the checkpoint beside it.

    Raises:
        CheckpointError: it is not.
    """
    if len(record.steps) != iteration:
        if not record.steps and not record.tried:
            raise CheckpointError(
                "the run is no greedy one: --resume-from its checkpoint.pt begins one in another folder"
            )
        steps = f"{len(record.steps)} steps, the checkpoint beside it {iteration}"
        raise CheckpointError(f"{FILE} has {steps}: they are not of one run")
