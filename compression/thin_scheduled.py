"""Thinning under a scheduler: masks, policies and optimizer follow, on all ranks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer

from potstill.thinning import Recipe, thin

from .account import hidden_structures
from .policies import ScheduledTrainingPolicy
from .rank_agreement import Decided, compare_ranks

logger = logging.getLogger(__name__)

WRAP_ANEW = (
    "channels were removed: make DistributedDataParallel(model) anew before the next step, since it keeps the old"
    " shapes (or set scheduler.rewrap to a function that does)"
)


class Thinnable(Decided, Protocol):
    """The part of a scheduler that thinning uses."""

    model: nn.Module
    example_inputs: Any
    validation_batch: Any
    policies: list[ScheduledTrainingPolicy]
    removed: dict[str, dict[str, int]]
    rewrap: Callable[[], None] | None

    def forget_graph(self) -> None:
        """See `CompressionScheduler.forget_graph`."""


def thin_scheduled(scheduler: Thinnable, optimizer: Optimizer | None, **options: Any) -> Recipe:
    """See `CompressionScheduler.thin`."""
    if scheduler.example_inputs is None:
        raise ValueError("thinning runs the model: give CompressionScheduler(model, example_inputs=...)")
    compare_ranks(scheduler, "thin()")
    scheduler.ranks.follow_first(scheduler.model.buffers())  # constants of dead channels are made of them
    recipe = None
    for policy in scheduler.policies:
        policy.before_thinning()
    try:
        recipe = _thin(scheduler, optimizer, options)
    finally:
        for policy in scheduler.policies:
            policy.after_thinning(recipe)
    compare_ranks(scheduler, "thin()")
    if scheduler.ranks.size > 1 and not recipe.removes_nothing:
        if scheduler.rewrap is None:
            logger.warning("%s", WRAP_ANEW)
        else:
            scheduler.rewrap()
    return recipe


def _thin(scheduler: Thinnable, optimizer: Optimizer | None, options: dict[str, Any]) -> Recipe:
    before = hidden_structures(scheduler)
    batch, inputs = scheduler.validation_batch, scheduler.example_inputs
    recipe = thin(scheduler.model, inputs, scheduler.masks, optimizer, validation_batch=batch, **options)
    scheduler.forget_graph()
    scheduler.recipes.append(recipe)
    _count_removed(scheduler, before)
    return recipe


def _count_removed(scheduler: Thinnable, before: dict[str, dict[str, int]]) -> None:
    """Remember, for the account, how many hidden structures are gone."""
    after = hidden_structures(scheduler)
    for policy, counts in before.items():
        removed = scheduler.removed.setdefault(policy, {})
        for name, count in counts.items():
            removed[name] = removed.get(name, 0) + count - after[policy].get(name, count)
