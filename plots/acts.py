"""What pictures show of policies: who acts when, and what for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from potstill.compression import (
    CompressionScheduler,
    LRPolicy,
    PruningPolicy,
    RegularizationPolicy,
    ScheduledTrainingPolicy,
    Window,
)
from potstill.compression.language.plan import goal_of, plan_rows
from potstill.compression.language.signatures import KINDS
from potstill.compression.schedule import Schedule

from .style import LINES

CLASSES = {PruningPolicy: "pruner", RegularizationPolicy: "regularizer", LRPolicy: "lr_scheduler"}
COLOURS = dict(zip(("pruner", "regularizer", "lr_scheduler", "extension"), LINES, strict=False))


@dataclass(frozen=True)
class Act:
    """A policy in a picture.

    Attributes:
        name: what it is called.
        kind: `pruner`, `regularizer`, `lr_scheduler` or `extension`.
        window: when it acts.
        detail: what stands behind its name, in parentheses.
        goal: the share of the network that is to be removed, where that is its target.
    """

    name: str
    kind: str
    window: Window
    detail: str = ""
    goal: float | None = None


Policies = CompressionScheduler | Schedule | Sequence[Act]
"""What has policies."""


def acts_of(policies: Policies) -> list[Act]:
    """Return the policies of a scheduler or a schedule, in their order."""
    if isinstance(policies, CompressionScheduler):
        return [_of_policy(policy) for policy in policies.policies]
    if not isinstance(policies, Schedule):
        return list(policies)
    rows = zip(policies.policies, plan_rows(policies), strict=True)
    goals = [goal_of(policies.instances[KINDS[plan.kind], plan.instance]) for plan in policies.policies]
    return [
        Act(plan.instance, plan.kind, plan.window, row["sparsity"], goal)
        for (plan, row), goal in zip(rows, goals, strict=True)
    ]


def epochs_of(act: Act, minibatches: int | None) -> tuple[float, float] | None:
    """Return where an act begins and ends, in epochs; None where it counts minibatches, and an epoch's are unknown."""
    per_epoch = 1 if act.window.unit == "epoch" else minibatches
    return None if per_epoch is None else (act.window.start / per_epoch, act.window.end / per_epoch)


def minibatches_of(policies: Policies) -> int | None:
    """Return how many minibatches an epoch of a scheduler's training had."""
    now = policies.history.now if isinstance(policies, CompressionScheduler) else None
    return None if now is None else now.minibatches_per_epoch


def _of_policy(policy: ScheduledTrainingPolicy) -> Act:
    kind = next((kind for cls, kind in CLASSES.items() if isinstance(policy, cls)), "extension")
    goal = policy.goal()
    sized = goal is not None and goal.unit != "microseconds"  # time is no share of the network
    return Act(policy.name, kind, policy.window, "", goal.asked / goal.of if goal and sized else None)
