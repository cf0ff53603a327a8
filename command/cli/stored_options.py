"""The options of a run that goes on, taken from its checkpoint: checked like those of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from potstill.compression import CheckpointError, load_checkpoint
from potstill.compression.files.checked import Field, reading
from potstill.thinning.files.regular import must_be_regular

NOT_KEPT = (
    *("resume_from", "resume", "reset_optimizer", "exp_load_weights_from", "pretrained", "import_distiller", "debug"),
    *("evaluate", "thinnify", "summary", "export_onnx", "dry_run", "help", "folder", "act_stats", "plugin"),
    *("write_schema", "sense", "sense_range", "sense_weights", "sense_on", "sense_loss", "sense_folder"),
)
"""Options that say what this call does, not how its run is; and those that name code."""


def stored_arguments(parser: argparse.ArgumentParser, folder: Path, plugins: list[Path]) -> list[str]:
    """The arguments that the run of a folder was started with; its schedule is the copy that lies there.

    Args:
        parser: of the command line; it exits with status 2 where it would not take an argument.
        folder: the run folder.
        plugins: those given now.

    Raises:
        CheckpointError: the folder has no sound checkpoint, its options cannot be read, or it needs plugins. These are
            code: which to run is for the user to say and not for a file.
    """
    path = must_be_regular(folder / "checkpoint.pt")
    checkpoint = load_checkpoint(path, warns=False)  # who restores the run warns
    with reading(str(path)):
        options = Field(checkpoint)["options"].mapping()
        needed = [item.text() for item in options["plugin"].items()] if "plugin" in options else []
        if needed and not plugins:
            again = " ".join(f"--plugin {name}" for name in needed)
            raise CheckpointError(f"this run had plugins, which are code: if you trust them, add {again}")
        if "compress" in options and options["compress"].value:
            options["compress"] = Field(str(must_be_regular(folder / "schedule.yaml")))
        kept = [action for action in parser._actions if action.dest in options and action.dest not in NOT_KEPT]
        arguments = [text for action in kept for text in _arguments(action, options[action.dest])]
    before, parser.prog = parser.prog, f"{parser.prog}: {path}: options"
    parser.parse_args(arguments)
    parser.prog = before
    return arguments


def _arguments(action: argparse.Action, value: Field) -> Iterator[str]:
    """What would give an option its value; nothing where it is not set."""
    if not action.option_strings or value.value is None:
        return
    if isinstance(action.const, bool):  # a switch
        if value.flag() == action.const:
            yield action.option_strings[0]
    elif action.nargs != 0:
        text = value.value if isinstance(value.value, str) else repr(value.number())
        yield f"{action.option_strings[0]}={text}"
