"""Runs a learning-rate scheduler of torch on absolute time."""

from __future__ import annotations

import copy
import logging
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from potstill.thinning.zeros import listed

from ..declare.cross_checks import Complaint, Use
from ..files.checked import Field
from ..steps import Step, Window
from .base import Moment, NotYet, ScheduledTrainingPolicy
from .host import Host

logger = logging.getLogger(__name__)


class LRPolicy(ScheduledTrainingPolicy):
    """Sets the optimizer's learning rate to what a scheduler gives after as many steps as epochs (or minibatches) ran.

    Time is absolute, as it was in Distiller: a window that starts at epoch 8 begins to follow at epoch 9 the curve
    that began at epoch 0. After the window the rate stays. The scheduler runs on a shadow of the optimizer's
    hyperparameters, so several policies do not compound, and a resumed run gives the same rates.

    Attributes:
        leading: of the policies that share this curve, the one that followed it last, by the unit of their windows.
    """

    compresses = False

    def __init__(
        self,
        factory: Callable[[Optimizer], LRScheduler],
        optimizer: Optimizer,
        leading: dict[str, LRPolicy] | None = None,
    ) -> None:
        """Take what makes the scheduler for an optimizer, and the optimizer whose rates it starts from.

        Policies with equal factories may be given the same `leading`, empty at first: each then goes on where another
        has come to, and of a thousand not each takes a thousand steps.
        """
        self.factory = factory
        self.leading: dict[str, LRPolicy] = {} if leading is None else leading
        self._fresh = True
        self._defaults = dict(optimizer.defaults)
        self._base = [
            {k: v for k, v in group.items() if k != "params"} | {"lr": float(group.get("initial_lr", group["lr"]))}
            for group in optimizer.param_groups
        ]

    @property
    def acts(self) -> str:
        """The scheduler's class."""
        return type(self._scheduler).__name__

    def check_class(self, name: str) -> None:
        """Accept any: rates follow absolute time, so that another curve can go on where one ended."""

    def acts_in(self, hook: str, step: Step) -> bool:
        """Return True for the hooks of what the window counts."""
        return hook == self.window.unit

    def bind(self, scheduler: Host, window: Window, name: str) -> None:
        """Join a scheduler.

        Raises:
            ValueError: the curve ends before the window does, or needs what the window does not give.
        """
        super().bind(scheduler, window, name)
        self._start()
        for _, problem in (*_late(type(self._scheduler), window), *_short(self._scheduler, window)):
            raise ValueError(problem)

    def on_epoch_begin(self, moment: Moment) -> None:
        """Set the rate that the curve begins with, where it begins with training itself (warm-ups begin low)."""
        self._tell_of_other_rates(moment)
        if self.window.unit == "epoch":
            self._rejoin(moment)
        if moment.step.epoch == 0 and moment.optimizer is not None:
            self._copy(moment.optimizer)

    def on_minibatch_begin(self, moment: Moment) -> None:
        """Do the same where the window counts minibatches."""
        if self.window.unit == "minibatch":
            self._rejoin(moment)
            if moment.step.index == 0 and moment.optimizer is not None:
                self._copy(moment.optimizer)

    def on_minibatch_end(self, moment: Moment) -> None:
        """Set the rate for the next minibatch, where the window counts minibatches."""
        if self.window.unit == "minibatch":
            self._advance(moment, moment.step.index + 1)

    def on_epoch_end(self, moment: Moment) -> None:
        """Set the rate for the next epoch, where the window counts epochs.

        Raises:
            ValueError: `ReduceLROnPlateau` needs `metrics={"min": loss, "max": accuracy}` in `on_epoch_end`.
        """
        if self.window.unit == "epoch":
            self._advance(moment, moment.step.epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the rates that the curve starts from, the scheduler's state at its begin (its arguments) and now."""
        return {
            "base": self._base,
            "class": self.acts,
            "began": self._began,
            "scheduler": self._state(),
            "groups": _hyperparameters(self._shadow),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; of a scheduler of other arguments what does not come from these."""
        fields, self._fresh = Field(state), False
        self._base = [dict(group) for group in fields["base"].like(self._base)]
        self._start()
        if (fields["class"].text(), fields["began"].value) == (self.acts, self._began):
            fields["scheduler"].like(self._state())
            fields["scheduler"]["last_epoch"].integer(most=2**40)
            self._scheduler.load_state_dict(dict(fields["scheduler"].value))
        elif isinstance(self._scheduler, ReduceLROnPlateau):
            self._go_on_counting(fields["scheduler"])
        else:
            logger.warning("%s: the schedule has another curve than the checkpoint, and the rate follows it", self.name)
            self._joins = True
            return
        groups = fields["groups"].like(_hyperparameters(self._shadow))
        for group, values in zip(self._shadow.param_groups, groups, strict=True):
            group.update(values)

    def _go_on_counting(self, state: Field) -> None:
        """Take what a plateau scheduler of other arguments has counted, where that is what this one counts."""
        logger.warning("%s: the schedule has other arguments than the checkpoint, and the rate follows them", self.name)
        mine: Any = self._scheduler
        if not isinstance(state.value, dict) or state.value.get("mode") != mine.mode:
            return
        mine.best = state["best"].number(finite=False)
        for name in ("num_bad_epochs", "cooldown_counter", "last_epoch"):
            setattr(mine, name, state[name].integer(most=2**40))

    def _tell_of_other_rates(self, moment: Moment) -> None:
        """Warn, once, where training begins with other rates than the curve does."""
        fresh, self._fresh = self._fresh, False
        if not fresh or moment.step.epoch or moment.optimizer is None or self._others_have_set_rates():
            return
        given = [float(group.get("initial_lr", group["lr"])) for group in moment.optimizer.param_groups]
        base = [group["lr"] for group in self._base]
        if given != base:
            logger.warning(
                "%s: the curve starts from the rates %s of the optimizer that the schedule was loaded with; those of"
                " the optimizer that trains, %s, are replaced",
                self.name, listed(tuple(map(str, base))), listed(tuple(map(str, given))),
            )  # fmt: skip

    def _others_have_set_rates(self) -> bool:
        others = (policy for policy in self.scheduler.policies if policy is not self)
        return any(isinstance(policy, LRPolicy) and not policy._fresh for policy in others)

    def _rejoin(self, moment: Moment) -> None:
        """Set the rate that this curve would have now, after a resume with another one."""
        if not self._joins:
            return
        self._joins = False
        times = self.window.times
        before = bisect_left(times, self.window.position(moment.step))
        if before:
            self._advance(moment, times[before - 1] + 1)

    def _state(self) -> dict[str, Any]:
        return {k: v for k, v in self._scheduler.state_dict().items() if _is_plain(v)}

    def _start(self) -> None:
        self._shadow = torch.optim.SGD([{"params": [torch.zeros(())], **group} for group in self._base], lr=0.0)
        self._shadow.defaults = dict(self._defaults)
        self._scheduler = self.factory(self._shadow)
        self._began = self._state()
        self._joins = False

    def _advance(self, moment: Moment, steps: int) -> None:
        if moment.optimizer is None:
            raise ValueError(f"{self.name}: hooks need the optimizer to set its learning rate")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the shadow optimizer never steps, and torch remarks on it
            if isinstance(self._scheduler, ReduceLROnPlateau):
                metric = self._metric(moment)
                if metric is None:
                    return
                self._scheduler.step(metric)
            else:
                self._catch_up(steps)
                while self._scheduler.last_epoch < steps:
                    self._scheduler.step()
                self.leading[self.window.unit] = self
        self._copy(moment.optimizer)

    def _catch_up(self, steps: int) -> None:
        """Go to where the leading policy stands, if that is on the way: it took the steps that this one would take."""
        leader = self.leading.get(self.window.unit, self)
        ahead = self._scheduler.last_epoch < leader._scheduler.last_epoch <= steps
        if ahead and leader._base == self._base and leader._began == self._began:
            self._scheduler.load_state_dict(copy.deepcopy(leader._state()))
            for group, values in zip(self._shadow.param_groups, _hyperparameters(leader._shadow), strict=True):
                group.update(values)

    def _copy(self, optimizer: Optimizer) -> None:
        rates = _hyperparameters(self._shadow)
        if len(rates) != len(optimizer.param_groups):
            now = f"the optimizer has {len(optimizer.param_groups)} parameter groups now, and had {len(rates)}"
            raise ValueError(f"{self.name}: {now} when the policy was made: add groups before, or make a new schedule")
        for group, values in zip(optimizer.param_groups, rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(values.pop("lr"))  # compiled steps and graphs look at this very tensor
            group.update({key: value for key, value in values.items() if key in group})

    def _metric(self, moment: Moment) -> float | None:
        """Return what the rate follows, the mean over the ranks that measured it; None before the first validation."""
        mode = self._scheduler.mode  # type: ignore[attr-defined]  # only plateau schedulers come here
        waits = isinstance(moment.metrics, NotYet)
        every = self.scheduler.ranks.all((waits, None if waits else moment.metrics.get(mode)))
        measured = [float(value) for _, value in every if value is not None]
        if not measured and any(waiting for waiting, _ in every):
            return None
        if not measured:
            raise ValueError(
                f"{self.name}: ReduceLROnPlateau needs on_epoch_end(..., metrics={{'{mode}': value}}); where the"
                f" scheduler is attached, attachment.metrics = {{'{mode}': value}} after each validation"
            )
        return sum(measured) / len(measured)


def trial(cls: type[LRScheduler], args: Mapping[str, Any]) -> LRScheduler:
    """Return a scheduler of an optimizer of one parameter."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cls(optimizer, **args)


def misuses_of_rates(use: Use) -> Iterable[Complaint]:
    """Yield what is wrong with the window of a learning-rate scheduler."""
    yield from _late(use.cls, use.window)
    if use.given.complete:
        args = {name: use.given[name] for name in use.given.written}
        with suppress(Exception):  # arguments that it refuses are told of the instance
            yield from list(_short(trial(use.cls, args), use.window))


def _late(cls: type, window: Window) -> Iterable[Complaint]:
    if issubclass(cls, ReduceLROnPlateau) and window.unit == "minibatch":
        message = "follows the validation, which comes once an epoch, so its window must count epochs"
        yield "times", f"{cls.__name__} {message}"


def _short(scheduler: LRScheduler, window: Window) -> Iterable[Complaint]:
    kind, steps = type(scheduler).__name__, getattr(scheduler, "total_steps", None)
    if steps is not None and steps < window.end:
        yield "times", f"{kind} has total_steps {steps}, but its window ends at {window.unit} {window.end}"


def _hyperparameters(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return what schedulers change in each group: the learning rate, and momentum where they cycle it."""
    return [{k: g[k] for k in ("lr", "momentum", "betas") if k in g} for g in optimizer.param_groups]


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, float, str, bool, list, tuple, dict, type(None)))
