"""From SparseML's modifiers to a schedule: a function for each kind, entered by its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .sparseml_recipe import Modifier

ALL, PRUNABLE = "__ALL__", "__ALL_PRUNABLE__"
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
EXPRESSION = re.compile(r"\^?(?:(?:\\[.dw]|\[[\w.-]+\]|[\w.-])[*+?]?)*\$?")
"""Regular expressions that are tried: without groups, so that none takes for ever."""
MOST_REPEATS = 5
MOST_EPOCHS = 100_000
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


class Untranslated(Exception):  # noqa: N818 -- says what it is in the words that users read
    """What a modifier asks for cannot be said in a schedule."""


@dataclass
class Translation:
    """What becomes of a recipe.

    Attributes:
        schedule: sections and policies.
        pieces: of the learning rate: (first epoch, last epoch, rate, rate, shape).
        epochs: the length of training, or None.
        options: what the command line has to say.
        notes: (line, what was left out or rounded).
    """

    model: nn.Module
    teacher: Mapping[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=lambda: {"policies": []})
    pieces: list[tuple[int, int, float, float, str]] = field(default_factory=list)
    epochs: int | None = None
    options: list[str] = field(default_factory=list)
    notes: list[tuple[int, str]] = field(default_factory=list)

    def note(self, modifier: Modifier, text: str) -> None:
        """Remember what was not done as the recipe says."""
        self.notes.append((modifier.line, f"!{modifier.kind}: {text}"))

    def add(self, kind: str, name: str, instance: dict[str, Any], **when: Any) -> None:
        """Enter an instance and its policy."""
        section = self.schedule.setdefault(f"{kind}s", {})
        name = f"{name}_{len(section) + 1}"
        section[name] = instance
        self.schedule["policies"].append({kind: {"instance_name": name}, **when})

    def epoch(self, modifier: Modifier, name: str, default: float | None = None) -> int:
        """A whole epoch; -1 is the end of training as far as it is known."""
        value = number(modifier, name, default)
        if value < 0 and name == "end_epoch":
            if self.epochs is None:
                raise Untranslated("it lasts to the end of training, which no !EpochRangeModifier before it gives")
            return self.epochs
        whole = round(max(value, 0))
        if whole > MOST_EPOCHS:
            raise Untranslated(f"{name} is {value:g}")
        if value >= 0 and whole != value:
            self.note(modifier, f"{name} {value:g} is rounded to {whole}: policies begin with an epoch")
        return whole

    def weights(self, modifier: Modifier, asked: Any) -> list[str]:
        """The parameters that names, regular expressions and SparseML's words for all of them mean."""
        names = dict.fromkeys(name for name, _ in self.model.named_parameters())
        found: dict[str, None] = {}
        for entry in [asked] if isinstance(asked, str) else asked if isinstance(asked, list) else []:
            fitting = [entry] if entry in names else list(self._fitting(str(entry), names))
            if not fitting:
                self.note(modifier, f"{str(entry)[:60]!r} fits no parameter of the network")
            found.update(dict.fromkeys(fitting))
        if not found:
            raise Untranslated("it names no parameter of the network (params)")
        return list(found)

    def _fitting(self, entry: str, names: Iterable[str]) -> Iterable[str]:
        if entry == ALL:
            return names
        if entry == PRUNABLE:
            return [f"{name}.weight" for name, module in self.model.named_modules() if isinstance(module, LAYERS)]
        if not entry.startswith("re:"):
            return []
        pattern = entry.removeprefix("re:")
        if not EXPRESSION.fullmatch(pattern) or len(re.findall(r"[*+?]", pattern)) > MOST_REPEATS:
            raise Untranslated(f"the regular expression {pattern[:60]!r} is not a simple one: write the names")
        return [name for name in names if re.match(pattern, name)]


Rule = Callable[[Modifier, Translation], None]
RULES: dict[str, Rule] = {}


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Enter a function that translates modifiers of these kinds; it raises `Untranslated` where it cannot."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return enter


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
    _rates(result)
    result.notes.sort()
    return result


def number(modifier: Modifier, name: str, default: float | None = None) -> float:
    """A field that is a number.

    Raises:
        Untranslated: it is missing or something else.
    """
    value = modifier.fields.get(name, default)
    if type(value) not in (int, float) or not abs(value) < float("inf"):
        raise Untranslated(f"{name} is {'missing' if value is None else ascii(value)[:40]}, not a number")
    return value


@rule("EpochRangeModifier")
def _epochs(modifier: Modifier, result: Translation) -> None:
    result.epochs = max(result.epochs or 0, round(number(modifier, "end_epoch")))


@rule("GMPruningModifier", "MagnitudePruningModifier", "GlobalMagnitudePruningModifier", "StructuredPruningModifier")
def _gradual(modifier: Modifier, result: Translation) -> None:
    """The same cubic rise: SparseML's last update is at `end_epoch`, our window ends after its last one."""
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
    """Each final sparsity with its parameters: one for all, or a mapping."""
    final, params = fields.get("final_sparsity"), fields.get("params", PRUNABLE)
    pairs = [(key, value) for key, value in final.items()] if isinstance(final, dict) else [(final, params)]
    try:
        found = [(float(level), names) for level, names in pairs]
    except (TypeError, ValueError):
        raise Untranslated("final_sparsity is no number") from None
    if not all(0 <= level <= 1 for level, _ in found):
        raise Untranslated("final_sparsity is not within 0 and 1")
    return found


def _of_mask_type(modifier: Modifier, instance: dict[str, Any], when: dict[str, Any]) -> None:
    """The class for what is pruned as one."""
    fields = modifier.fields
    kind = fields.get("mask_type", "filter" if modifier.kind == "StructuredPruningModifier" else "unstructured")
    parts = re.fullmatch(r"(\d{1,4}):(\d{1,4})", kind) if isinstance(kind, str) else None
    block = [1, 4] if kind == "block4" else kind
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
    """What is zero stays zero."""
    names = result.weights(modifier, modifier.fields.get("params", PRUNABLE))
    start = result.epoch(modifier, "start_epoch", 0.0)
    thresholds = dict.fromkeys(names, 0.0)
    result.add("pruner", "zeros", {"class": "MagnitudeParameterPruner", "thresholds": thresholds}, epochs=[start])


@rule("SetLearningRateModifier")
def _set_rate(modifier: Modifier, result: Translation) -> None:
    start, rate = result.epoch(modifier, "start_epoch", 0.0), number(modifier, "learning_rate")
    result.pieces.append((start, start + 1, rate, rate, "linear"))


@rule("LearningRateFunctionModifier")
def _rate_function(modifier: Modifier, result: Translation) -> None:
    shape = modifier.fields.get("lr_func", "linear")
    if shape not in ("linear", "cosine"):
        raise Untranslated(f"lr_func {ascii(shape)[:40]}: linear and cosine are known")
    start, end = result.epoch(modifier, "start_epoch"), result.epoch(modifier, "end_epoch")
    if end <= start:
        raise Untranslated(f"end_epoch {end} is not after start_epoch {start}")
    result.pieces.append((start, end, number(modifier, "init_lr"), number(modifier, "final_lr"), shape))


TORCH = {
    "StepLR": torch.optim.lr_scheduler.StepLR,
    "MultiStepLR": torch.optim.lr_scheduler.MultiStepLR,
    "ExponentialLR": torch.optim.lr_scheduler.ExponentialLR,
    "CosineAnnealingWarmRestarts": torch.optim.lr_scheduler.CosineAnnealingWarmRestarts,
}
RENAMED = {"lr_min": "eta_min", "cycle_epochs": "T_0", "cycle_mult": "T_mult"}


@rule("LearningRateModifier")
def _rate_class(modifier: Modifier, result: Translation) -> None:
    """The rates that torch's scheduler gives, epoch by epoch: its curve begins at the modifier's own start."""
    kind = modifier.fields.get("lr_class")
    start = result.epoch(modifier, "start_epoch", 0.0)
    end = result.epoch(modifier, "end_epoch", -1.0)
    given = modifier.fields.get("lr_kwargs") or {}
    if kind not in TORCH or not isinstance(given, dict):
        raise Untranslated(f"lr_class {ascii(kind)[:40]}: one of {', '.join(TORCH)} is known")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], number(modifier, "init_lr"))
    try:
        arguments = {RENAMED.get(name, name): value for name, value in given.items()}
        if kind == "CosineAnnealingWarmRestarts":
            arguments["T_0"] = round(arguments["T_0"])
        elif kind == "MultiStepLR":  # milestones are epochs of the whole training
            arguments["milestones"] = [round(epoch) - start for epoch in arguments["milestones"]]
        scheduler: Any = TORCH[kind](optimizer, **arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise Untranslated(f"lr_kwargs of {kind}: {error}") from error
    before: float | None = None
    for epoch in range(start, end):
        rate = optimizer.param_groups[0]["lr"]
        if rate != before:
            result.pieces.append((epoch, epoch + 1, rate, rate, "linear"))
        before = rate
        optimizer.step()
        scheduler.step()


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


def _rates(result: Translation) -> None:
    """One curve of all pieces; a later one ends an earlier one."""
    pieces: list[list[Any]] = []
    for first, end, start, goal, shape in sorted(result.pieces, key=lambda piece: piece[0]):
        if pieces and pieces[-1][0] == first:
            pieces.pop()
        if pieces and pieces[-1][1] > first:
            pieces[-1] = _cut(pieces[-1], first, result)
        pieces.append([first, end, start, goal, shape])
    if pieces:
        last = max(result.epochs or 0, pieces[-1][1])
        rates = result.schedule.setdefault("lr_schedulers", {})
        rates["rates"] = {"class": "PiecewiseLR", "pieces": pieces}
        policy = {"lr_scheduler": {"instance_name": "rates"}, "starting_epoch": 0, "ending_epoch": last}
        result.schedule["policies"].append(policy)


def _cut(piece: list[Any], epoch: int, result: Translation) -> list[Any]:
    """The part of a piece before an epoch."""
    first, end, start, goal, shape = piece
    if shape == "cosine":
        result.notes.append((0, f"the cosine from epoch {first} to {end} ends at {epoch}, where another rate begins"))
        return [first, epoch, start, goal, shape]
    return [first, epoch, start, start + (goal - start) * (epoch - first) / (end - first), shape]
