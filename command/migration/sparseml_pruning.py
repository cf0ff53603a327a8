"""SparseML's pruning and distillation as pruners and extensions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .sparseml_recipe import Modifier
from .sparseml_translation import MOST_EPOCHS, PRUNABLE, Translation, Untranslated, number, rule


@rule("EpochRangeModifier")
def _epochs(modifier: Modifier, result: Translation) -> None:
    end = number(modifier, "end_epoch")
    if not 0 <= end <= MOST_EPOCHS:
        raise Untranslated(f"end_epoch is {end:g}")
    result.epochs = max(result.epochs or 0, round(end))


@rule("GMPruningModifier", "MagnitudePruningModifier", "GlobalMagnitudePruningModifier", "StructuredPruningModifier")
def _gradual(modifier: Modifier, result: Translation) -> None:
    """Keep the cubic rise: SparseML's last update is at `end_epoch`, our window ends after its last one."""
    fields = modifier.fields
    start, end = result.epoch(modifier, "start_epoch"), result.epoch(modifier, "end_epoch")
    every = number(modifier, "update_frequency", 1.0)
    step = min(max(1, round(every)), max(end - start, 1))
    if every != step:
        result.note(modifier, f"update_frequency {every:g} is every {step} epochs here")
    if fields.get("inter_func", "cubic") != "cubic":
        raise Untranslated(f"inter_func {fields['inter_func']!r}: gradual pruners rise cubically")
    if fields.get("score_type", "magnitude") != "magnitude":
        raise Untranslated(
            f"score_type {str(fields['score_type'])[:30]!r}: gradual pruners of elements go by magnitude"
        )
    if fields.get("leave_enabled", True) is not True:
        result.note(modifier, "leave_enabled is false: what is pruned here stays zero")
    if end <= start:
        raise Untranslated(f"end_epoch {end} is not after start_epoch {start}")
    when = {"starting_epoch": start, "ending_epoch": end + 1, "frequency": step}
    for final, params in _finals(fields):
        first = 0.0 if fields.get("init_sparsity") == "__FROM_PARAM__" else number(modifier, "init_sparsity", 0.05)
        instance = {"class": "", "initial_sparsity": first, "final_sparsity": final}
        instance["weights"] = result.weights(modifier, params)
        _of_mask_type(modifier, instance, when)
        result.add("pruner", "gradual", instance, **when)


def _finals(fields: Mapping[str, Any]) -> list[tuple[float, Any]]:
    """Return each final sparsity with its parameters: one for all, or a mapping."""
    final: Any = fields.get("final_sparsity")
    pairs = list(final.items()) if isinstance(final, dict) else [(final, fields.get("params", PRUNABLE))]
    try:
        found = [(float(level), names) for level, names in pairs]
    except (TypeError, ValueError):
        raise Untranslated("final_sparsity is no number") from None
    if not all(0 <= level <= 1 for level, _ in found):
        raise Untranslated("final_sparsity is not within 0 and 1")
    return found


def _of_mask_type(modifier: Modifier, instance: dict[str, Any], when: dict[str, Any]) -> None:
    """Choose the class for what is pruned as one."""
    fields = modifier.fields
    kind = fields.get("mask_type", "filter" if modifier.kind == "StructuredPruningModifier" else "unstructured")
    parts = re.fullmatch(r"(\d{1,4}):(\d{1,4})", kind) if isinstance(kind, str) else None
    block = [1, 4] if kind in ("block", "block4") else kind
    if fields.get("global_sparsity") or modifier.kind.startswith("Global"):
        if kind != "unstructured":
            raise Untranslated(f"mask_type {kind!r} with one threshold for all layers")
        instance["class"] = "GlobalMagnitudePruner_AGP"
    elif kind == "unstructured":
        instance["class"] = "AutomatedGradualPruner"
    elif kind in ("filter", "channel"):
        instance |= {"class": "L1RankedStructureParameterPruner_AGP", "group_type": f"{str(kind).capitalize()}s"}
    elif parts:
        last = when["ending_epoch"] - 1
        names = instance["weights"]
        instance.clear()
        when.clear()
        instance |= {"class": "NMPruner", "n": int(parts[1]), "m": int(parts[2]), "weights": names}
        when["epochs"] = [last]
    elif isinstance(block, list) and len(block) == 2 and all(type(size) is int for size in block):
        instance |= {"class": "L1RankedStructureParameterPruner_AGP", "group_type": "Blocks"}
        instance["kwargs"] = {"block_shape": block}
    else:
        raise Untranslated(f"mask_type {ascii(kind)[:40]}")


@rule("ConstantPruningModifier")
def _constant(modifier: Modifier, result: Translation) -> None:
    """Keep what is zero at zero."""
    names = result.weights(modifier, modifier.fields.get("params", PRUNABLE))
    start = result.epoch(modifier, "start_epoch", 0.0)
    thresholds = dict.fromkeys(names, 0.0)
    result.add("pruner", "zeros", {"class": "MagnitudeParameterPruner", "thresholds": thresholds}, epochs=[start])


@rule("DistillationModifier")
def _distillation(modifier: Modifier, result: Translation) -> None:
    start, end = result.epoch(modifier, "start_epoch", 0.0), result.epoch(modifier, "end_epoch", -1.0)
    hardness, temperature = number(modifier, "hardness", 0.5), number(modifier, "temperature", 2.0)
    weights = {"temperature": temperature, "distill_weight": hardness, "student_weight": round(1 - hardness, 12)}
    if result.teacher:
        instance = {"class": "KnowledgeDistillationPolicy", **result.teacher, **weights}
        result.add("extension", "teacher", instance, starting_epoch=start, ending_epoch=end)
    else:
        given = f"--kd-temp {temperature:g} --kd-distill-wt {hardness:g} --kd-student-wt {1 - hardness:g}"
        result.options.append(f"--kd-teacher NAME --kd-resume FILE {given} --kd-start-epoch {start}")
        result.note(modifier, "the recipe does not name the teacher: give --kd-teacher and --kd-resume, here or there")
