"""Runs a pruner: when masks are computed, and how they treat what they hide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from ..arguments import Levels, Range
from ..masks import Mode
from ..pruners import Pruner, View
from ..steps import Step, Window
from .base import Moment, ScheduledTrainingPolicy

if TYPE_CHECKING:
    from ..scheduler import CompressionScheduler


@dataclass(frozen=True)
class PrunerArgs:
    """The `args` of a pruner's policy.

    Attributes:
        levels: sparsities by parameter for this policy, for pruners that take levels.
        keep_mask: when the window ends, make soft masks permanent.
        mini_batch_pruning_frequency: inside active epochs, compute the masks anew whenever the number of minibatches
            since the start of training is a multiple of this (0: only at the beginning of the epoch).
        mask_on_forward_only: soft masks: hidden weights are zero in the forward pass and can come back.
        mask_gradients: soft masks stop the gradients of what they hide.
        use_double_copies: soft masks keep a dense copy, which the optimizer updates.
        discard_masks_at_minibatch_end: this policy's masks last for one minibatch.
        skip_first_minibatch: compute the first masks one minibatch late, for pruners that need gradients.
        fold_batchnorm: rank convolutions by their weights multiplied with the scale of the BatchNorm behind them.
    """

    levels: Levels | None = None
    keep_mask: bool = False
    mini_batch_pruning_frequency: Annotated[int, Range(0)] = 0
    mask_on_forward_only: bool = False
    mask_gradients: bool = False
    use_double_copies: bool = False
    discard_masks_at_minibatch_end: bool = False
    skip_first_minibatch: bool = False
    fold_batchnorm: bool = False

    def __post_init__(self) -> None:
        """Refuse what only soft masks can do where masks are hard."""
        for name in ("mask_gradients", "use_double_copies"):
            if getattr(self, name) and not self.mask_on_forward_only:
                raise ValueError(f"{name} needs mask_on_forward_only: true")

    @property
    def mode(self) -> Mode:
        """How the masks treat what they hide."""
        if not self.mask_on_forward_only:
            return "hard"
        return "copy" if self.use_double_copies else "forward"


class PruningPolicy(ScheduledTrainingPolicy):
    """Computes a pruner's masks at the window's times and puts them into the scheduler's masks."""

    def __init__(self, pruner: Pruner, args: PrunerArgs | None = None) -> None:
        """Take the pruner and how its masks behave."""
        self.pruner, self.args = pruner, args or PrunerArgs()

    def bind(self, scheduler: CompressionScheduler, window: Window, name: str) -> None:
        """Join a scheduler; the pruner resolves its names.

        Raises:
            ValueError: a name matches no parameter.
        """
        super().bind(scheduler, window, name)
        self.pruner.bind(scheduler.model)

    def on_epoch_begin(self, moment: Moment) -> None:
        """Compute the masks of an epoch."""
        if self.window.unit == "epoch" and not self._waits():
            self._prune(moment.step)

    def on_minibatch_begin(self, moment: Moment) -> None:
        """Compute masks at a minibatch, where the window or the arguments ask for it."""
        if self._due(moment.step):
            self._prune(moment.step)

    def on_minibatch_end(self, moment: Moment) -> None:
        """Discard or keep masks."""
        if self.args.discard_masks_at_minibatch_end:
            self.scheduler.masks.drop(self.name)
        if self.args.keep_mask and self.window.ends(moment.step):
            self.scheduler.masks.harden(self.name)

    def state_dict(self) -> dict[str, Any]:
        """The pruner's own state."""
        return self.pruner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the pruner's own state."""
        self.pruner.load_state_dict(state)

    def _waits(self) -> bool:
        return self.args.skip_first_minibatch and not self.scheduler.masks.of(self.name)

    def _due(self, step: Step) -> bool:
        if self.window.unit == "minibatch":
            return not (self._waits() and step.index == self.window.start)
        if step.minibatch == 0:
            return False
        if self._waits():
            return True
        every = self.args.mini_batch_pruning_frequency
        return every > 0 and step.index % every == 0

    def _prune(self, step: Step) -> None:
        masks = self.scheduler.masks
        view = View(
            step=step,
            window=self.window,
            weights=_Dense(self.scheduler),
            masks=masks.of(self.name),
            model=self.scheduler.model,
            graph=self.scheduler.graph,
            levels=self.args.levels,
        )
        stops = self.args.mode == "hard" or self.args.mask_gradients
        for name, mask in self.pruner.masks(view).items():
            masks.set(self.name, name, mask, self.args.mode, stops)


class _Dense(Mapping[str, Any]):
    """The dense values of all parameters by name, looked up when asked for."""

    def __init__(self, scheduler: CompressionScheduler) -> None:
        self._masks = scheduler.masks

    def __getitem__(self, name: str) -> Any:
        return self._masks.dense(name)

    def __iter__(self) -> Any:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)
