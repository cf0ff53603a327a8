"""Copies of a scheduler, in memory or by pickle: each follows its own model, and no optimizer yet."""

from __future__ import annotations

import copy
import logging
from typing import Any, TypeVar

from .attach import Attachment
from .policies import ScheduledTrainingPolicy

logger = logging.getLogger(__name__)
T = TypeVar("T", bound="CopiedScheduler")


class CopiedScheduler:
    """A scheduler that can be copied with its model."""

    attachment: Attachment | None
    policies: list[ScheduledTrainingPolicy]

    def __deepcopy__(self: T, memo: dict[int, Any]) -> T:
        """Copy the scheduler with its model; the copy is not attached, which a warning says."""
        memo[id(self)] = twin = object.__new__(type(self))
        for name, value in self.__getstate__().items():
            setattr(twin, name, copy.deepcopy(value, memo))
        for policy in twin.policies:
            policy.copied()
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied: all but the attachment, since hooks of the optimizer do not come along."""
        if self.attachment is not None:
            logger.warning(
                "the copy of an attached scheduler is not attached: call attach on it, with an optimizer of its own"
                " model"
            )
        return {**vars(self), "attachment": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what was pickled; what policies watch is the model that was pickled with them."""
        vars(self).update(state)
        for policy in self.policies:
            policy.copied()
