"""What the policies of a schedule act on and when, as `--dry-run` prints it, and what in it is seldom meant."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import nn

from potstill.compression import Window
from potstill.compression.declare.names import resolve, resolve_mapping
from potstill.compression.language.plan import plan_row, target
from potstill.compression.language.signatures import KINDS
from potstill.compression.schedule import InstancePlan, PolicyPlan, Schedule
from potstill.compression.steps import when
from potstill.thinning.files.text import Lines, printable

NAMED_ARGUMENTS = ("weights", "levels", "sensitivities", "thresholds", "reg_regims")


@dataclass(frozen=True)
class Acting:
    """A policy, its instance, and the parameters that they name."""

    plan: PolicyPlan
    instance: InstancePlan
    names: list[str]


def acting(schedule: Schedule, model: nn.Module) -> list[Acting]:
    """Return the policies in the order of the file."""
    found = []
    for plan in schedule.policies:
        instance = schedule.instances[KINDS[plan.kind], plan.instance]
        levels = getattr(plan.args, "levels", None)
        given = [levels] if levels else [instance.args.get(argument) for argument in NAMED_ARGUMENTS]
        names = [name for value in given if value for name in _resolved(value, model)]
        found.append(Acting(plan, instance, list(dict.fromkeys(names))))
    return found


def _resolved(value: Any, model: nn.Module) -> Iterable[str]:
    """Return the parameters of a list of names, or of the keys of a mapping."""
    if isinstance(value, Mapping):
        return resolve_mapping(dict.fromkeys(value), model, star=True)
    return resolve(value, model)


def policies_table(found: Sequence[Acting]) -> pd.DataFrame:
    """Return one row a policy: kind, instance, class, when, how sparse, with what `args`, on how many parameters."""
    rows = [plan_row(one.plan, one.instance) | {"parameters": len(one.names) or ""} for one in found]
    table = pd.DataFrame(rows)
    return table if table["args"].any() else table.drop(columns="args")


def names_text(found: Sequence[Acting]) -> str:
    """Return the parameters of each instance, and when they are meant."""
    times: dict[tuple[str, ...], list[str]] = {}
    for one in found:
        if one.names:
            times.setdefault((one.plan.instance, *one.names), []).append(when(one.plan.window))
    lines = []
    for (instance, *names), windows in times.items():
        named = f"names {len(names)} parameter{'s' if len(names) > 1 else ''}:"
        lines.append(f"{printable(instance)} ({'; '.join(windows)}) {named}")
        lines += [f"  {line}" for line in textwrap.wrap(", ".join(names), 116, break_on_hyphens=False)]
    return Lines("\n".join(lines))


def remarks(found: Sequence[Acting], model: nn.Module, epochs: int) -> list[str]:
    """Return what is allowed but seldom meant: late windows, two policies on one parameter, first and last layers."""
    told = []
    for one in found:
        window, instance = one.plan.window, one.plan.instance
        if window.unit == "minibatch":
            told.append(f"{instance} counts minibatches, so that without data it is not in the timeline by epochs")
        elif remark := late(instance, window, epochs):
            told.append(remark)
    for one in found:
        if one.plan.kind in ("pruner", "regularizer") and not target(one.plan, one.instance):
            told.append(f"{one.plan.instance} goes by the values of weights: in training it acts otherwise than here")
    told += _clashes(found)
    weights = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    for one in found:
        for place, name in (("first", weights[0]), ("last", weights[-1])):
            if name in one.names:
                told.append(f"{one.plan.instance} touches the {place} layer, {name}")
    return list(dict.fromkeys(told))


def late(name: str, window: Window, epochs: int, minibatches: int = 1) -> str:
    """Return what to say of a policy that begins or acts last after so many epochs; nothing of others."""
    if window.epoch_of(window.last, minibatches) < epochs:
        return ""
    fate = "never acts" if window.epoch_of(window.start, minibatches) >= epochs else "is cut off"
    return f"{name} {fate}: training ends before epoch {epochs}"


def idle(name: str, args: Any, window: Window, minibatches: int) -> str:
    """Return what to say of arguments that have no effect with so many minibatches an epoch; nothing of others."""
    times = window.times[:minibatches] if isinstance(window.times, range) else window.times  # remainders come again
    ends = window.unit == "epoch" or any((time + 1) % minibatches == 0 for time in times)
    if getattr(args, "threshold_at", "") == "epoch" and not ends:
        return f"{name} never zeroes: it does at the end of an epoch (threshold_at), and none is in its window"
    if getattr(args, "skip_first_minibatch", False) and minibatches == len(window.times) == 1:
        return f"{name} never acts: it skips the first minibatch, and there is no other in its window"
    return ""


def _clashes(found: Sequence[Acting]) -> list[str]:
    """Return what to say of policies that act on one parameter at a time: of each the one that it meets last.

    Not of all pairs: a thousand policies of one pruner are half a million.
    """
    by_name: dict[str, list[int]] = {}
    for place, one in enumerate(found):
        for name in one.names:
            by_name.setdefault(name, []).append(place)
    both: dict[tuple[int, int], list[str]] = {}
    for name, places in by_name.items():
        lasting: dict[str, int] = {}  # by the unit of their windows, those that end last
        for place in sorted(places, key=lambda place: found[place].plan.window.start):
            window = found[place].plan.window
            for other in lasting.values():
                if _meet(found[other].plan.window, window):
                    both.setdefault((min(place, other), max(place, other)), []).append(name)
            last = lasting.get(window.unit, place)
            lasting[window.unit] = place if window.end >= found[last].plan.window.end else last
    return [_clash(found[one], found[other], names) for (one, other), names in sorted(both.items())]


def _clash(one: Acting, other: Acting, both: Sequence[str]) -> str:
    """Return what to say of two policies that act on the same parameters at a time."""
    one_, other_ = (f"{acts.plan.instance} ({when(acts.plan.window)})" for acts in (one, other))
    more = "" if len(both) == 1 else f" and {len(both) - 1} more parameter{'s' if len(both) > 2 else ''}"
    return f"{one_} and {other_} overlap: both act on {min(both)}{more}"


def _meet(one: Window, other: Window) -> bool:
    """Return whether two windows overlap, also where their times alternate.

    Unknown, and so yes, if their units differ.
    """
    return one.unit != other.unit or (one.start < other.end and other.start < one.end)
