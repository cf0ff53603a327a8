"""Runs a pruner: when masks are computed, and how they treat what they hide."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from potstill.thinning import Recipe

from ..declare.names import resolve_mapping
from ..files.checked import Field
from ..parameter_mask import Mode
from ..parts.claims import Claim
from ..processes.shards import every, refuse_sharded
from ..pruners import Pruner, View
from ..pruners.outcome import Outcome
from ..steps import Step, Window
from .base import Moment, ScheduledTrainingPolicy, plain_arguments
from .dense_weights import DenseWeights, FoldedWeights
from .host import Host
from .pruner_args import PrunerArgs
from .warnings import warn_of_overlap

logger = logging.getLogger(__name__)


class PruningPolicy(ScheduledTrainingPolicy):
    """Computes a pruner's masks at the window's times and puts them into the scheduler's masks.

    Attributes:
        outcomes: what the pruner's last ranking for this policy asked and did, by weight.

    Hard masks stay after the window. Soft ones last until its end (exclusive), and then the weights are dense again,
    unless `keep_mask` makes them hard: a soft window between dense training is dense-sparse-dense (Han et al. 2017).
    """

    def __init__(self, pruner: Pruner, args: PrunerArgs | None = None) -> None:
        """Take the pruner and how its masks behave."""
        self.pruner, self.args = pruner, args or PrunerArgs()
        self._concluded = False
        self._last: Step | None = None
        self._told: set[tuple[str, str]] = set()
        self.outcomes: Mapping[str, Outcome] = {}
        self._asked: dict[str, int] = {}  # of each weight in the size that it had then, where that may be another now

    @property
    def acts(self) -> str:
        """The pruner's class."""
        return type(self.pruner).__name__

    def arguments(self) -> dict[str, Any]:
        """Return the pruner's and the policy's."""
        return {**plain_arguments(self.pruner), "args": plain_arguments(self.args)}

    def acts_in(self, hook: str, step: Step) -> bool:
        """Return where masks are computed."""
        if hook == "epoch":
            return self.window.unit == "epoch" and not self._first(step)
        return self._due(step)

    def bind(self, scheduler: Host, window: Window, name: str) -> None:
        """Join a scheduler; the pruner resolves its names.

        Raises:
            ValueError: a name matches no parameter, or an argument needs what the scheduler was not given.
        """
        if self.args.fold_batchnorm and scheduler.example_inputs is None:
            raise ValueError("fold_batchnorm needs to know what follows what: give CompressionScheduler example_inputs")
        super().bind(scheduler, window, name)
        if self.args.fold_batchnorm:
            refuse_sharded("fold_batchnorm", scheduler.masks, scheduler.model)
        self.pruner.bind(scheduler.model)
        levels = self.args.levels
        self._levels = None if levels is None else resolve_mapping(levels, scheduler.model, star=True)
        self.pruner.prepare(window, scheduler.graph)
        warn_of_overlap(scheduler.joined, self)

    def copied(self) -> None:
        """Let the copy's pruner watch the copy's model."""
        self.pruner.copied(self.scheduler.model)

    def on_epoch_begin(self, moment: Moment) -> None:
        """Compute the masks of an epoch."""
        if self.acts_in("epoch", moment.step):
            self._prune(moment.step)

    def on_minibatch_begin(self, moment: Moment) -> None:
        """Compute masks at a minibatch, where the window or the arguments ask for it."""
        if self.acts_in("minibatch", moment.step):
            self._prune(moment.step)

    @property
    def sees_loss(self) -> bool:
        """Return whether the pruner looks at the loss."""
        return type(self.pruner).see_loss is not Pruner.see_loss

    def see_loss(self, moment: Moment, loss: Tensor) -> None:
        """Show it to the pruner, as long as there is something to rank yet."""
        if not self.window.over(moment.step):
            self.pruner.see_loss(loss, moment.step)

    def on_minibatch_end(self, moment: Moment) -> None:
        """Discard or keep masks."""
        if self.args.discard_masks_at_minibatch_end:
            self.scheduler.masks.drop(self.name)
        if self.window.ends(moment.step):
            self._conclude(moment.step)

    def after_window(self, moment: Moment) -> None:
        """End soft masks with the window, unless they are kept; its last minibatch may have been left out."""
        self._conclude(moment.step)
        if self.args.mask_on_forward_only and not self.args.keep_mask:
            self.scheduler.masks.drop(self.name)

    def why_passing(self) -> str:
        """Return which argument ends its masks."""
        if self.args.discard_masks_at_minibatch_end:
            return "each of its masks lasts for a minibatch (discard_masks_at_minibatch_end)"
        soft = self.args.mask_on_forward_only and not self.args.keep_mask
        return "its soft masks end with the window (keep_mask: true keeps them)" if soft else ""

    def finish(self) -> None:
        """Keep masks that are to be kept, though the window may not have ended."""
        if self._keeps and self._last is not None:
            self._settle(self._last)
        self._tell_of_fewer()

    def _tell_of_fewer(self) -> None:
        """Name each weight, once, of which fewer structures are hidden than the schedule asks for."""
        for name, outcome in self.outcomes.items():
            if outcome.short:
                self._tell("%s: %s: %s", name, outcome.shortfall)

    def _tell_of_left(self) -> None:
        """Name each weight, once, of whose hidden filters biases and norms stay."""
        for name, outcome in self.outcomes.items():
            if outcome.left:
                self._tell("%s: %s: biases and norms behind pruned filters stay as they are (%s)", name, outcome.left)

    def _tell(self, message: str, *args: str) -> None:
        if (message, args[0]) not in self._told:
            self._told.add((message, args[0]))
            logger.warning(message, self.name, *args)

    def targets(self) -> Iterable[str]:
        """Return the parameters that the pruner acts on."""
        return self.pruner.targets() if self._levels is None else self._levels

    def claims(self, last: Step | None) -> Mapping[str, Claim]:
        """Return what was asked of each parameter when masks were computed last."""
        structures, outcomes = self.pruner.structures(), self.outcomes
        asked: Mapping[str, int] = {}
        if last is not None:
            view = self._view(last, self.args.mode)
            outcomes, asked = outcomes or self.pruner.expected(view), {**self.pruner.asked(view), **self._asked}
        claims = {name: Claim(structures.get(name), asked.get(name)) for name in self.targets()}
        return claims | {name: Claim(structures.get(name), o.asked, o.why) for name, o in outcomes.items()}

    def expected(self) -> Mapping[str, Outcome]:
        """Return what the ranking at the window's last time will ask and do, as far as it is known before training."""
        window = self.window
        last = Step(window.last) if window.unit == "epoch" else Step(0, window.last, window.last + 1)
        return self.pruner.expected(self._view(last, self.args.mode))

    def after_thinning(self, recipe: Recipe | None) -> None:
        """Let the pruner forget what has the old shapes."""
        if recipe is not None:
            self.pruner.after_thinning()

    def before_thinning(self) -> None:
        """Note what was asked of the weights in their size of now."""
        self._asked = self._asked_now()

    def _asked_now(self) -> dict[str, int]:
        if self._asked or self._last is None:
            return self._asked
        return dict(self.pruner.asked(self._view(self._last, self.args.mode)))

    def state_dict(self) -> dict[str, Any]:
        """Return whether the window's end was dealt with, and the pruner's own state."""
        return {"concluded": self._concluded, "pruner": self.pruner.state_dict(), "asked": self._asked_now()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self._concluded = Field(state)["concluded"].flag()
        asked = Field(state)["asked"].mapping() if "asked" in state else {}
        self._asked = {name: count.integer() for name, count in asked.items()}
        self.pruner.load_state_dict(Field(state)["pruner"].value)

    def shared_state(self) -> dict[str, Any]:
        """Return the state without what the pruner gathered on this rank."""
        state = {name: value for name, value in self.pruner.state_dict().items() if name not in self.pruner.local}
        return {"concluded": self._concluded, "pruner": state}

    def local_state(self) -> dict[str, Any]:
        """Return what the pruner gathered on this rank."""
        return {name: value for name, value in self.pruner.state_dict().items() if name in self.pruner.local}

    def join_local_states(self, states: Sequence[Field]) -> None:
        """Let the pruner take what several ranks had gathered."""
        if self.pruner.local:
            self.pruner.join(states)

    def _first(self, step: Step) -> bool:
        """Return whether these would be the first masks, where they are to come one minibatch late."""
        return self.args.skip_first_minibatch and self.window.position(step) == self.window.start

    def _due(self, step: Step) -> bool:
        if self.window.unit == "minibatch":
            return not self._first(step)
        if step.minibatch == 0:
            return False
        every = self.args.mini_batch_pruning_frequency
        return (step.minibatch == 1 and self._first(step)) or (every > 0 and step.index % every == 0)

    def _prune(self, step: Step) -> None:
        masks, mode = self.scheduler.masks, self.args.mode
        masks.follow()  # the model may have been moved since: masks are made where the weights are
        self._last, self._asked = step, {}
        view = self._view(step, mode)
        made = self._checked(self.pruner.masks(view))
        self.outcomes = self.pruner.outcomes
        self._tell_of_left()
        if self.pruner.at_last_level(view):
            self._tell_of_fewer()
        for name, values in self.pruner.values(view, made).items():
            masks.replace(name, values)
        for name, mask in made.items():
            # A mask of ones matters only in the place of an earlier one; else it would cost its part of a pass a step.
            if name in view.masks or not _hides_nothing(mask):
                masks.set(self.name, name, mask, mode, mode == "hard" or self.args.mask_gradients)

    def _checked(self, made: Any) -> Mapping[str, Tensor]:
        """Return the masks, if they are masks of parameters: pruners may be plugins."""
        if not isinstance(made, Mapping):
            raise ValueError(f"{self.name}: {self.acts}.masks must give masks by parameter, not {type(made).__name__}")
        unknown = [name for name in made if name not in self.scheduler.masks]
        if unknown:
            raise ValueError(f"{self.name}: {self.acts}.masks gives a mask of {unknown[0]!r}, which is no parameter")
        return made

    @property
    def _keeps(self) -> bool:
        return self.args.keep_mask and self.args.mask_on_forward_only and not self._concluded

    def _conclude(self, step: Step) -> None:
        """Conclude at the end of the window, once."""
        if self._keeps:
            self._settle(step)
        if not self._concluded:
            self.pruner.release()
        self._concluded = True

    def _settle(self, step: Step) -> None:
        self.scheduler.masks.harden(self.name)
        for name, mask in self.pruner.settle(self._view(step, "hard")).items():
            self.scheduler.masks.set(self.name, name, mask)

    def _view(self, step: Step, mode: Mode) -> View:
        masks = self.scheduler.masks
        weights: Mapping[str, Tensor] = DenseWeights(masks)
        if self.args.fold_batchnorm:
            weights = FoldedWeights(weights, self.scheduler)
        return View(
            step=step,
            window=self.window,
            weights=weights,
            masks=masks.of(self.name),
            model=self.scheduler.model,
            graph=self.scheduler.graph,
            levels=self.args.levels,
            owner=self.name,
            mode=mode,
            ranks=self.scheduler.ranks,
            inputs=self.scheduler.example_inputs,
        )


def _hides_nothing(mask: Tensor) -> bool:
    return mask.dtype == torch.bool and every(mask)
