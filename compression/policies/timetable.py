"""Which policies stand within their windows, found without asking all of them at each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..steps import Step
from .base import ScheduledTrainingPolicy

Unit = Literal["epoch", "minibatch"]
Placed = tuple[int, ScheduledTrainingPolicy]


class Timetable:
    """Policies by when they begin and end.

    A schedule may spread a thousand policies over a thousand epochs: to ask each at each of them would be a million
    questions. Steps rise, so that moving on costs what begins or ends in between; a step back begins anew.
    """

    def __init__(self, policies: Sequence[ScheduledTrainingPolicy]) -> None:
        """Take the list of policies, in the order in which they act."""
        self._policies = policies
        self.begin()

    def begin(self) -> None:
        """Know nothing of the steps before: training goes on from a state, or a policy has joined."""
        self._clocks: dict[Unit, _Clock] = {}
        self._observers: list[ScheduledTrainingPolicy] | None = None
        self._acted: dict[str, ScheduledTrainingPolicy] | None = None

    def acting(self, step: Step, by_epoch: bool = False) -> list[ScheduledTrainingPolicy]:
        """Return the policies whose window covers the step; at epoch hooks only those that count epochs."""
        acting = self._clock("epoch").acting(step)
        if not by_epoch and (others := self._clock("minibatch").acting(step)):
            acting = sorted([*acting, *others], key=_place)
        return self._noted([policy for _, policy in acting])

    def over(self, step: Step, unit: Unit) -> list[ScheduledTrainingPolicy]:
        """Return the policies whose window is over since this was asked last."""
        return self._noted([policy for _, policy in self._clock(unit).ended(step)])

    def acted(self) -> list[ScheduledTrainingPolicy]:
        """Return the policies that may have another state than when this was asked last; at first all."""
        acted, self._acted = self._acted, {}
        if acted is None:
            return list(self._policies)
        return list((acted | {policy.name: policy for policy in self.observers()}).values())

    def observers(self) -> Sequence[ScheduledTrainingPolicy]:
        """Return the policies that look at the loss."""
        if self._observers is None:
            self._observers = [policy for policy in self._policies if policy.sees_loss]
        return self._observers

    def _noted(self, policies: list[ScheduledTrainingPolicy]) -> list[ScheduledTrainingPolicy]:
        if self._acted is not None:
            for policy in policies:
                self._acted[policy.name] = policy
        return policies

    def _clock(self, unit: Unit) -> _Clock:
        if unit not in self._clocks:
            placed = enumerate(self._policies)
            self._clocks[unit] = _Clock([(place, policy) for place, policy in placed if policy.window.unit == unit])
        return self._clocks[unit]


class _Clock:
    """The windows of one unit, and how far time has come."""

    def __init__(self, placed: Sequence[Placed]) -> None:
        self._starts = sorted(placed, key=lambda one: one[1].window.start)
        self._ends = sorted(placed, key=_end)
        self._reset()

    def _reset(self) -> None:
        self._now, self._begun, self._over = -1, 0, 0
        self._within: dict[int, ScheduledTrainingPolicy] = {}
        self._ended: dict[int, ScheduledTrainingPolicy] = {}
        self._acting: list[Placed] = []

    def acting(self, step: Step) -> list[Placed]:
        """Return those whose window covers the step, by their places."""
        self._move(step)
        return self._acting

    def ended(self, step: Step) -> list[Placed]:
        """Return those that have ended since this was asked last, by their places."""
        self._move(step)
        ended, self._ended = self._ended, {}
        return sorted(ended.items(), key=_place)

    def _move(self, step: Step) -> None:
        now = self._starts[0][1].window.position(step) if self._starts else 0
        if now == self._now:  # as at each minibatch of an epoch, where epochs are counted
            return
        if now < self._now:
            self._reset()
        self._now = now
        while self._begun < len(self._starts) and self._starts[self._begun][1].window.start <= now:
            place, policy = self._starts[self._begun]
            self._within[place] = policy
            self._begun += 1
        while self._over < len(self._ends) and _end(self._ends[self._over]) <= now:
            place, policy = self._ends[self._over]
            self._ended[place] = self._within.pop(place)
            self._over += 1
        within = sorted(self._within.items(), key=_place)
        self._acting = [placed for placed in within if placed[1].window.covers(step)]


def _place(placed: Placed) -> int:
    return placed[0]


def _end(placed: Placed) -> int:
    """Return when a window is over; one that was made by hand may leave its end out."""
    return max(placed[1].window.end, placed[1].window.last + 1)
