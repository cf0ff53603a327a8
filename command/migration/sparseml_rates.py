"""SparseML's learning rates as one curve."""

from __future__ import annotations

from typing import Any

import torch

from .sparseml_recipe import Modifier
from .sparseml_translation import Translation, Untranslated, number, rule


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
    """Take the rates that torch's scheduler gives, epoch by epoch: its curve begins at the modifier's own start."""
    kind = modifier.fields.get("lr_class")
    start = result.epoch(modifier, "start_epoch", 0.0)
    end = result.epoch(modifier, "end_epoch", -1.0)
    given = modifier.fields.get("lr_kwargs") or {}
    if not isinstance(kind, str) or kind not in TORCH or not isinstance(given, dict):
        raise Untranslated(f"lr_class {ascii(kind)[:40]}: one of {', '.join(TORCH)} is known")
    arguments = {RENAMED.get(str(name), str(name)): value for name, value in given.items()}
    try:
        rates = _curve(kind, arguments, number(modifier, "init_lr"), start, end)
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise Untranslated(f"lr_kwargs of {kind}: {type(error).__name__}: {error}") from error
    changes = [place for place in range(len(rates)) if place == 0 or rates[place] != rates[place - 1]]
    result.pieces += [(start + at, start + at + 1, rates[at], rates[at], "linear") for at in changes]


def _curve(kind: str, arguments: dict[str, Any], rate: float, start: int, end: int) -> list[float]:
    """Return the rate of each epoch from `start` to `end`, which is left out."""
    if kind == "CosineAnnealingWarmRestarts":
        arguments["T_0"] = round(arguments["T_0"])
    elif kind == "MultiStepLR":  # milestones are epochs of the whole training
        arguments["milestones"] = [round(epoch) - start for epoch in arguments["milestones"]]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], rate)
    scheduler: Any = TORCH[kind](optimizer, **arguments)
    rates = []
    for _ in range(start, end):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def join_rates(result: Translation) -> None:
    """Join all pieces to one curve; a later one ends an earlier one."""
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
    """Return the part of a piece before an epoch."""
    first, end, start, goal, shape = piece
    if shape == "cosine":
        result.notes.append((0, f"the cosine from epoch {first} to {end} ends at {epoch}, where another rate begins"))
        return [first, epoch, start, goal, shape]
    return [first, epoch, start, start + (goal - start) * (epoch - first) / (end - first), shape]
