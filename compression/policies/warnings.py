"""Says what is well defined but seldom meant: two policies on one parameter, a mask of nothing, frozen weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .joined import MOST, Joined

logger = logging.getLogger(__name__)


def warn_of_overlap(joined: Joined, policy: Any) -> None:
    """Warn of each policy of the other kind that acts on a parameter of the new one, up to `MOST`.

    It is well defined (both masks hold, the threshold's only after each step), but seldom meant: the pruner only adds
    to what the threshold leaves if it is the more aggressive of the two.
    """
    mine, met = set(policy.targets()), joined.met(policy)
    for other in met:
        both = sorted(mine & set(other.targets()))
        more = f" and {len(both) - 1} more" if len(both) > 1 else ""
        meet = f"{other.name} and {policy.name} act on {both[0]}{more}"
        logger.warning("%s: one prunes, the other zeroes what is below its threshold; the weight obeys both", meet)
    if len(met) == MOST:
        logger.warning("%s may act on weights of further policies: the first %d were named", policy.name, MOST)


def warn_of_empty_mask(policy: Any) -> None:
    """Warn of a penalty in the loss whose `keep_mask` has nothing to keep: it makes weights small, not zero."""
    regularizer = policy.regularizer
    if policy.args.keep_mask and policy.args.mode == "loss" and getattr(regularizer, "threshold_criteria", "") is None:
        logger.warning(
            "%s: keep_mask keeps nothing, since %s zeroes no weight: give it threshold_criteria, or mode: proximal",
            policy.name,
            type(regularizer).__name__,
        )


def warn_of_frozen(policy: Any, weights: Mapping[str, Tensor]) -> None:
    """Warn of parameters that a penalty or its proximal step does not change because they are frozen."""
    names = [name for name in policy.regularizer.shrinks() if not weights[name].requires_grad]
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        threshold = " (its threshold does)" if set(names) & set(policy.targets()) else ""
        logger.warning(
            "%s: %s%s: frozen (requires_grad is False), so that the penalty does not change it%s",
            policy.name,
            names[0],
            more,
            threshold,
        )
