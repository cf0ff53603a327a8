"""`--import-sparseml FILE`: prints the schedule that a recipe of SparseML amounts to."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from potstill.compression.language.errors import one_line
from potstill.compression.schedule import load_schedule

from .sparseml_recipe import read_recipe
from .sparseml_rules import Translation, translate

logger = logging.getLogger("potstill")


def schedule_of_recipe(path: Path, model: nn.Module, teacher: Mapping[str, Any] | None = None) -> Translation:
    """Return what a recipe amounts to for a network, as a schedule that was loaded and checked.

    Args:
        path: the recipe, YAML or Markdown with YAML in front.
        model: the network that it is for.
        teacher: arch, checkpoint or pretrained of the teacher, where the recipe distills.

    Raises:
        ScheduleError: the recipe cannot be read, or has something that no schedule for this network can do.
        OSError: there is no such file.
    """
    result = translate(read_recipe(path), model, teacher or {})
    if result.schedule["policies"]:
        load_schedule(result.schedule, model, name=f"{path}, translated")
    return result


def text_of(result: Translation, source: str) -> str:
    """Return the schedule as YAML; its header says where it is from, how to run it, and what was left out."""
    command = " ".join(["compress-classifier --compress THIS_FILE", *_options(result)])
    notes = [f"# line {line}: {text}" if line else f"# {text}" for line, text in result.notes]
    head = [f"# From the SparseML recipe {one_line(source)}", f"# {command}", *notes]
    order = ("lr_schedulers", "pruners", "extensions", "policies")
    sections = {name: result.schedule[name] for name in order if result.schedule.get(name)}
    return "\n".join(
        [*map(one_line, head), yaml.safe_dump(sections, sort_keys=False, default_flow_style=None, width=110)]
    )


def _options(result: Translation) -> list[str]:
    return [*([] if result.epochs is None else [f"--epochs {result.epochs}"]), *result.options]


def print_schedule(path: Path, model: nn.Module, teacher: Mapping[str, Any]) -> None:
    """Print the schedule to the standard output, and to the errors what was left out, each with its line.

    Raises:
        ScheduleError: see `schedule_of_recipe`.
    """
    result = schedule_of_recipe(path, model, teacher)
    for line, text in result.notes:
        logger.warning("%s:%d: %s", path, line, text)
    sys.stdout.write(text_of(result, path.name))
