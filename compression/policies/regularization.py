"""Runs a regularizer: its loss term at each minibatch, its threshold when asked, its masks or gates' end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from potstill.thinning import Recipe

from ..declare.cross_checks import Complaint, Use, apart
from ..files.checked import Field
from ..parts.claims import Claim, Goal
from ..processes.shards import here, part, parts
from ..regularizers import Regularizer, Site
from ..regularizers.in_place_gradients import add_penalties, total
from ..steps import Step, Window
from .base import LossComponent, Moment, PolicyLoss, ScheduledTrainingPolicy, plain_arguments
from .dense_weights import DenseWeights
from .host import Host
from .warnings import warn_of_empty_mask, warn_of_frozen, warn_of_overlap

Stage = Literal["waiting", "active", "finished"]


@dataclass(frozen=True)
class RegularizerArgs:
    """The `args` of a regularizer's policy.

    Attributes:
        keep_mask: when the window ends, what the threshold or the proximal step zeroes becomes a permanent mask.
        threshold_at: when the threshold acts: after each `minibatch`, after the last one of each active `epoch`, at the
            `end` of the window, or `never`.
        mode: `loss`: a term of the loss; `proximal`: a step of its own after the optimizer's, by learning rate x
            strength. It gives exact zeros without a threshold.
    """

    keep_mask: bool = False
    threshold_at: Literal["minibatch", "epoch", "end", "never"] = "minibatch"
    mode: Literal["loss", "proximal"] = "loss"

    @classmethod
    def problems(cls, args: Mapping[str, Any]) -> Iterable[Complaint]:
        """Return nothing: all arguments go together."""
        return ()

    @classmethod
    def misuses(cls, use: Use) -> Iterable[Complaint]:
        """Return a step that the regularizer does not have, and a time for a threshold that it does not have."""
        return apart(_no_step(use), _no_threshold(use))


def _no_step(use: Use) -> Iterable[Complaint]:
    if use.args["mode"] == "proximal" and not getattr(use.cls, "has_proximal_step", False):
        yield "args.mode", f"{use.cls.__name__} has no proximal step: use mode: loss"


def _no_threshold(use: Use) -> Iterable[Complaint]:
    if "threshold_at" not in use.args.written or use.args["threshold_at"] == "never":
        return
    if getattr(use.cls, "threshold", None) is Regularizer.threshold:
        yield "args.threshold_at", f"{use.cls.__name__} has no threshold"
    elif "threshold_criteria" in use.given and use.given["threshold_criteria"] is None:
        yield "args.threshold_at", "there is no threshold to act: give the instance threshold_criteria"


class RegularizationPolicy(ScheduledTrainingPolicy):
    """Adds a regularizer's term to the loss, and zeroes what falls below its threshold."""

    def __init__(self, regularizer: Regularizer, args: RegularizerArgs | None = None) -> None:
        """Take the regularizer and how its threshold behaves."""
        self.regularizer, self.args = regularizer, args or RegularizerArgs()
        self._stage: Stage = "waiting"
        self._last_metrics: dict[str, float] = {}
        self.component = f"{type(regularizer).__name__}_loss"

    @property
    def acts(self) -> str:
        """The regularizer's class."""
        return type(self.regularizer).__name__

    def arguments(self) -> dict[str, Any]:
        """Return the regularizer's and the policy's."""
        return {**plain_arguments(self.regularizer), "args": plain_arguments(self.args)}

    def bind(self, scheduler: Host, window: Window, name: str) -> None:
        """Join a scheduler; the regularizer resolves its names and checks what it can.

        Raises:
            ValueError: a name matches no parameter, or what the regularizer is for cannot be done.
        """
        if self.args.mode == "proximal" and not self.regularizer.has_proximal_step:
            raise ValueError(f"{type(self.regularizer).__name__} has no proximal step: use mode: loss")
        super().bind(scheduler, window, name)
        self._weights = dict(scheduler.model.named_parameters())
        self._values, self._rates = DenseWeights(scheduler.masks), LearningRates(self._weights)
        self.regularizer.bind(scheduler.model)
        site = Site(
            scheduler.model, scheduler.graph, window, name, scheduler.ranks, scheduler.example_inputs, scheduler.goes_on
        )
        self.regularizer.prepare(site)
        warn_of_overlap(scheduler.joined, self)
        warn_of_empty_mask(self)
        warn_of_frozen(self, self._weights)

    @property
    def zeroes_weights(self) -> bool:
        """Return whether a threshold or the proximal step does."""
        return self.args.mode == "proximal" or bool(tuple(self.targets()))

    @property
    def allows_inexact(self) -> bool:
        """Return whether the regularizer was told so."""
        return bool(getattr(self.regularizer, "allow_inexact", False))

    def goal(self) -> Goal | None:
        """Return what the regularizer wants."""
        return self.regularizer.goal()

    def claims(self, last: Step | None) -> Mapping[str, Claim]:
        """Return the parameters that the regularizer names; how much becomes zero follows from training."""
        structures = self.regularizer.structures()
        names = [*structures, *self.regularizer.shrinks(), *self.regularizer.targets()]
        return {name: Claim(structures.get(name)) for name in names}

    def targets(self) -> Iterable[str]:
        """Return the parameters that the threshold acts on."""
        return () if self.args.threshold_at == "never" and not self.args.keep_mask else self.regularizer.targets()

    def on_epoch_begin(self, moment: Moment) -> None:
        """Begin with the window."""
        self._begin()

    def on_minibatch_begin(self, moment: Moment) -> None:
        """Begin with the window, where it counts minibatches or the loop tells no epochs."""
        self._begin()

    def before_backward_pass(self, moment: Moment, loss: Tensor) -> PolicyLoss | None:
        """Add the regularizer's term, unless training was declared over before the window's end."""
        if self._stage == "finished":
            return None
        penalties = self.regularizer.penalties(self._weights)
        if self.args.mode == "proximal":
            value = total(penalties)
        elif penalties:
            loss, value = add_penalties(loss, penalties)
        else:
            value = self.regularizer.loss(self._weights, moment.step)
            loss = loss + value
        return PolicyLoss(loss, [LossComponent(self.component, value)])

    def on_minibatch_end(self, moment: Moment) -> None:
        """Zero what is below the threshold; at the end of the window keep it so if asked, and end the rest."""
        if self._stage == "finished":
            return
        self.regularizer.after_step(moment.step)
        if self.args.mode == "proximal":
            self._proximal(moment)
        if self.window.ends(moment.step):
            self._conclude(moment.step)
        elif self._thresholds(moment.step, False):
            self._threshold(keeps=False)

    def after_window(self, moment: Moment) -> None:
        """End with the window, where its last minibatch was left out."""
        if self._stage == "active":
            self._conclude(moment.step)

    def _conclude(self, step: Step) -> None:
        if self.args.keep_mask or self._thresholds(step, True):
            self._threshold(keeps=self.args.keep_mask)
        self.finish()

    @torch.no_grad()
    def _proximal(self, moment: Moment) -> None:
        self.regularizer.proximal(self._values, self._rates.of(moment.optimizer, self.name))
        self.scheduler.masks.refresh()

    @torch.no_grad()
    def finish(self) -> None:
        """Make permanent what the regularizer leaves: factors of parameters, masks."""
        if self._stage != "active":
            return
        self._stage = "finished"
        ending = self.regularizer.finish()
        self._last_metrics = self.regularizer.metrics()
        masks = self.scheduler.masks
        for name, factor in ending.factors.items():
            if name not in masks:  # a buffer, which nothing else changes
                buffer = self.scheduler.model.get_buffer(name)
                buffer.mul_(factor.to(buffer))
                continue
            dense = masks[name].dense  # the optimizer goes on from it, and it holds what is hidden
            for values in [self._weights[name]] + ([] if dense is None else [dense]):
                part(values).mul_(here(factor, values).to(part(values)))
        for name, mask in ending.masks.items():
            if name in masks:
                masks.set(self.name, name, mask)

    def copied(self) -> None:
        """Let the copy's regularizer act on the copy's model."""
        self.regularizer.copied()

    def own_parameters(self) -> Iterable[Tensor]:
        """Return the regularizer's."""
        return self.regularizer.own_parameters() if self._stage == "active" else ()

    def metrics(self) -> dict[str, float]:
        """Return the regularizer's numbers, under the policy's name; after the window those of its end."""
        numbers = self.regularizer.metrics() if self._stage == "active" else self._last_metrics
        return {f"{self.name}.{key}": value for key, value in numbers.items()}

    def before_thinning(self) -> None:
        """Let the regularizer make room."""
        if self._stage == "active":
            self.regularizer.before_thinning()

    def after_thinning(self, recipe: Recipe | None) -> None:
        """Let the regularizer follow the new shapes."""
        if self._stage == "active":
            self.regularizer.after_thinning(recipe)

    def state_dict(self) -> dict[str, Any]:
        """Return how far the policy is, and the regularizer's own state."""
        return {"stage": self._stage, "metrics": self._last_metrics, "regularizer": self.regularizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; inside of the window the regularizer begins at once, else it stops."""
        fields = Field(state)
        stage: Any = fields["stage"].text(get_args(Stage))
        if (stage == "active") != (self._stage == "active"):  # gates, which the state is of, are there in between
            self.regularizer.start() if stage == "active" else self.regularizer.stop()
        self._stage = stage
        self._last_metrics = {name: value.number() for name, value in fields["metrics"].mapping().items()}
        self.regularizer.load_state_dict(fields["regularizer"].value)

    def _begin(self) -> None:
        if self._stage == "waiting":
            self._stage = "active"
            self.regularizer.start()

    def _threshold(self, keeps: bool) -> None:
        masks = self.regularizer.threshold(self._values)
        if keeps and self.args.mode == "proximal":
            for name in self.regularizer.shrinks():
                alive = self._values[name] != 0
                masks[name] = masks[name] * alive if name in masks else alive
        if keeps:
            for name, mask in masks.items():
                self.scheduler.masks.set(self.name, name, mask)
        elif masks:  # once, and not as masks: weights may grow back
            with torch.no_grad():
                torch._foreach_mul_(parts([self._values[name] for name in masks]), parts(masks.values()))
            self.scheduler.masks.refresh()

    def _thresholds(self, step: Step, ends: bool) -> bool:
        when = self.args.threshold_at
        if when == "epoch":
            return step.last_of_epoch
        return when == "minibatch" or (when == "end" and ends)


class LearningRates:
    """Looks up learning rates by the parameters' names."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        """Take the parameters by name."""
        self._names = {id(parameter): name for name, parameter in parameters.items()}

    def of(self, optimizer: Optimizer | None, who: str) -> _Rates:
        """Return the rates of an optimizer now; those of parameters that it does not update, or that are frozen, are 0.

        Raises:
            ValueError: the hook was not given the optimizer.
        """
        if optimizer is None:
            raise ValueError(f"{who}: a proximal step needs the learning rate: give on_minibatch_end the optimizer")
        groups = {
            self._names[id(parameter)]: group
            for group in optimizer.param_groups
            for parameter in group["params"]
            if id(parameter) in self._names and parameter.requires_grad
        }
        return _Rates(groups)


class _Rates(Mapping[str, float]):
    def __init__(self, groups: dict[str, dict[str, Any]]) -> None:
        self._groups = groups

    def __getitem__(self, name: str) -> float:
        return float(self._groups[name]["lr"]) if name in self._groups else 0.0

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)
