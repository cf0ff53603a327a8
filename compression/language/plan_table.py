"""A schedule as a table: a row a policy, with who acts when and how sparse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..steps import when
from .signatures import KINDS, classes

if TYPE_CHECKING:
    from .plan import InstancePlan, PolicyPlan, Schedule

SIZES = {"target_macs": "MACs {:g}", "target_latency": "latency {:g}", "target_milliseconds": "{:g} ms"}
COLUMNS = ("kind", "instance", "class", "when", "sparsity", "args")


def plan_rows(schedule: Schedule) -> list[dict[str, Any]]:
    """Return the policies in the order of the file, by the names of `COLUMNS`."""
    return [plan_row(plan, schedule.instances[KINDS[plan.kind], plan.instance]) for plan in schedule.policies]


def plan_row(plan: PolicyPlan, instance: InstancePlan) -> dict[str, Any]:
    """Return kind, instance, class, when, how sparse, with what `args`."""
    told = (plan.kind, plan.instance, _class_name(instance), when(plan.window), target(plan, instance))
    return dict(zip(COLUMNS, (*told, _args(plan.args)), strict=True))


def levels_of(plan: PolicyPlan, instance: InstancePlan) -> Mapping[str, float] | None:
    """Return sparsities by parameter, those of the policy's `args` before those of the instance."""
    own: Mapping[str, float] | None = getattr(plan.args, "levels", None)
    return own if own is not None else instance.args.get("levels")


def target(plan: PolicyPlan, instance: InstancePlan) -> str:
    """Return the sparsity that a policy asks for; nothing where it follows from the weights."""
    args, levels = instance.args, levels_of(plan, instance)
    if levels:
        low, high = min(levels.values()), max(levels.values())
        return f"{low:g}" if low == high else f"{low:g} to {high:g}"
    if "final_sparsity" in args:
        return f"{args['initial_sparsity']:g} -> {args['final_sparsity']:g}"
    if "sparsity_range" in args:
        low, high = args["sparsity_range"]
        return f"{low:g} to {high:g}"
    if {"n", "m"} <= args.keys():
        return f"{args['n']}:{args['m']}"
    for name, words in SIZES.items():
        if args.get(name) is not None:
            return words.format(args[name])
    level = next((args[name] for name in ("desired_sparsity", "target_sparsity", "sparsity") if args.get(name)), None)
    return "" if level is None else f"{level:g}{' of alive' if args.get('of') == 'alive' else ''}"


def goal_of(instance: InstancePlan) -> float | None:
    """Return the share of parameters or multiply-adds that a target wants removed; None without one."""
    args = instance.args
    if args.get("target_macs") is not None:
        return 1 - float(args["target_macs"])
    return args.get("target_sparsity")


def _class_name(instance: InstancePlan) -> str:
    """Return what schedules call the class."""
    own = instance.cls.__name__
    known = [name for name, cls in classes(instance.section).items() if cls is instance.cls]
    return own if own in known or not known else known[0]


def _args(args: Any) -> str:
    """Return those that are not as they are by default."""
    if args is None:
        return ""
    given = [(f.name, getattr(args, f.name), f.default) for f in fields(args) if f.name != "levels"]
    return ", ".join(f"{name}: {str(value).lower()}" for name, value, default in given if value != default)
