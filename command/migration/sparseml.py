"""`--import-sparseml FILE`: prints the schedule that a recipe of SparseML amounts to."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from potstill.compression.language.errors import Report, ScheduleError
from potstill.compression.schedule import load_schedule
from potstill.thinning.files.text import printable

from . import sparseml_pruning  # noqa: F401 -- enters its functions
from .sparseml_rates import join_rates
from .sparseml_recipe import Modifier, read_recipe
from .sparseml_translation import RULES, Translation, Untranslated

INSTEAD = {
    "QuantizationModifier": "quantize the thinned network with torchao",
    "TrainableParamsModifier": "set requires_grad in Python",
    "SetWeightDecayModifier": "give --weight-decay; pruned weights stay zero under it",
    "MovementPruningModifier": "GradientRankedFilterPruner ranks by weight x gradient",
    "MFACPruningModifier": "AutomatedGradualPruner prunes by magnitude",
    "OBSPruningModifier": "AutomatedGradualPruner prunes by magnitude",
    "ACDCPruningModifier": "RigLPruner and dense_sparse_dense.yaml let weights come back",
    "LayerPruningModifier": "group lasso of 4D groups draws whole layers to zero",
}
"""For what has no equal here: what to do instead."""


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


def translate(modifiers: Iterable[Modifier], model: nn.Module, teacher: Mapping[str, Any]) -> Translation:
    """Return the schedule of a recipe for a network.

    Args:
        modifiers: those of the recipe.
        model: the network, for its names of parameters.
        teacher: arch, checkpoint or pretrained of the teacher for distillation, or nothing.
    """
    result = Translation(model, teacher)
    for modifier in sorted(modifiers, key=lambda entry: entry.kind != "EpochRangeModifier"):
        try:
            if modifier.kind not in RULES:
                instead = INSTEAD.get(modifier.kind)
                raise Untranslated("there is no equal here" + (f"; {instead}" if instead else ""))
            RULES[modifier.kind](modifier, result)
        except Untranslated as error:
            result.note(modifier, f"not translated: {error}")
    join_rates(result)
    result.notes.sort()
    return result


def text_of(result: Translation, source: str, arch: str) -> str:
    """Return the schedule as YAML; its header says where it is from, how to run it, and what was left out."""
    command = " ".join([f"compress-classifier --arch {arch} --compress THIS_FILE", *_options(result)])
    notes = [f"# line {line}: {text}" if line else f"# {text}" for line, text in result.notes]
    head = [f"# From the SparseML recipe {printable(source)}", f"# {command}", *notes]
    order = ("lr_schedulers", "pruners", "extensions", "policies")
    sections = {name: result.schedule[name] for name in order if result.schedule.get(name)}
    return "\n".join(
        [*map(printable, head), yaml.safe_dump(sections, sort_keys=False, default_flow_style=None, width=110)]
    )


def _options(result: Translation) -> list[str]:
    return [*([] if result.epochs is None else [f"--epochs {result.epochs}"]), *result.options]


def print_schedule(path: Path, model: nn.Module, arch: str, teacher: Mapping[str, Any]) -> None:
    """Print the schedule to the standard output, and to the errors what was left out, each with its line.

    Args:
        path: the recipe.
        model: the network that it is for.
        arch: the name of the network.
        teacher: see `schedule_of_recipe`.

    Raises:
        ScheduleError: see `schedule_of_recipe`; or nothing is left for a schedule to do.
    """
    result = schedule_of_recipe(path, model, teacher)
    for line, text in result.notes:
        sys.stderr.write(f"warning: {printable(str(path))}:{line}: {printable(text)}\n")
    if not result.schedule["policies"]:
        report = Report(str(path))
        report.error((), f"nothing of it is for a schedule of {arch} to do")
        raise ScheduleError(report.problems)
    sys.stdout.write(text_of(result, path.name, arch))
