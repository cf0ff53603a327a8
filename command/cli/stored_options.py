"""The options of a run that goes on, taken from its checkpoint: checked like those of the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from potstill.compression import CheckpointError
from potstill.compression.files.checked import Field, reading
from potstill.thinning.files.regular import must_be_regular

from .option import Group
from .training_options import DataOptions


def stored_network(path: Path, exporting: bool) -> Path:
    """Return the file that a path means: itself, or of a run folder the checkpoint; to export, what thinning left."""
    if not path.is_dir():
        return path
    thinned = path / "thinned.pt"
    return must_be_regular(thinned if exporting and thinned.exists() else path / "checkpoint.pt")


def stored_architecture(path: Path, checkpoint: Mapping[str, Any]) -> str:
    """Return the name of a checkpoint's network, checked like `--arch`.

    Raises:
        CheckpointError: there is no such network here.
    """
    with reading(str(path)):
        return DataOptions.stored({"arch": Field(dict(checkpoint))["arch"]})["arch"]


def stored_options(
    groups: Iterable[type[Group]], path: Path, checkpoint: Mapping[str, Any], plugins: Collection[Path]
) -> dict[str, Any]:
    """Return the options that a run was started with, by name; its schedule is the copy in its folder.

    Args:
        groups: of the command line.
        path: of the checkpoint.
        checkpoint: what it holds.
        plugins: those given now.

    Raises:
        CheckpointError: an option is not what it should be, or the run needs plugins. These are code: which to run is
            for the user to say and not for a file.
    """
    with reading(str(path)):
        state = Field(dict(checkpoint))["options"].mapping()
        needed = [item.text() for item in state.pop("plugin", Field([])).items()]
        if needed and not plugins:
            again = " ".join(f"--plugin {name}" for name in needed)
            raise CheckpointError(f"this run had plugins, which are code: if you trust them, add {again}")
        known = {name: value for group in groups for name, value in group.stored(state).items()}
    if known.get("compress"):
        known["compress"] = str(must_be_regular(path.with_name("schedule.yaml")))
    return known
