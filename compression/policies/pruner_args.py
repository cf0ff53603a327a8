"""The `args` of a pruner's policy, and what in them does not go together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from ..declare.arguments import Levels, Range
from ..declare.cross_checks import Complaint, Use, apart
from ..parameter_mask import Mode


@dataclass(frozen=True)
class PrunerArgs:
    """The `args` of a pruner's policy.

    Attributes:
        levels: sparsities by parameter for this policy, for pruners that take levels.
        keep_mask: at the last of the window's times, make soft masks permanent.
        mini_batch_pruning_frequency: inside active epochs, compute the masks anew whenever the number of minibatches
            since the start of training is a multiple of this (0: only at the beginning of the epoch).
        mask_on_forward_only: soft masks: hidden weights are zero in the forward pass and can come back.
        mask_gradients: soft masks stop the gradients of what they hide.
        use_double_copies: soft masks keep a dense copy, which the optimizer updates.
        discard_masks_at_minibatch_end: this policy's masks last for one minibatch.
        skip_first_minibatch: compute the first masks one minibatch late, for pruners that need gradients (where the
            window counts minibatches: at its second time).
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
        """Refuse what does not go together."""
        found = [message for _, message in self.problems(vars(self))]
        if found:
            raise ValueError("; ".join(found))

    @classmethod
    def problems(cls, args: Mapping[str, Any]) -> Iterable[Complaint]:
        """Return what only soft masks can do where masks are hard, and what would keep masks that are gone."""
        soft = (_needs_soft(name, args) for name in ("mask_gradients", "use_double_copies"))
        return apart(*soft, _keeps_nothing(args))

    @classmethod
    def misuses(cls, use: Use) -> Iterable[Complaint]:
        """Complain of arguments that would change nothing."""
        return apart(_levels_of_none(use), _frequency_of_minibatches(use), _skips_all(use))

    @property
    def mode(self) -> Mode:
        """Return how the masks treat what they hide."""
        if not self.mask_on_forward_only:
            return "hard"
        return "copy" if self.use_double_copies else "forward"


def _needs_soft(name: str, args: Mapping[str, Any]) -> Iterable[Complaint]:
    if args[name] and not args["mask_on_forward_only"]:
        yield "", f"{name} needs mask_on_forward_only: true"


def _keeps_nothing(args: Mapping[str, Any]) -> Iterable[Complaint]:
    if args["keep_mask"] and args["discard_masks_at_minibatch_end"]:
        yield "", "keep_mask keeps nothing, since discard_masks_at_minibatch_end drops the masks: give one of them"


def _skips_all(use: Use) -> Iterable[Complaint]:
    if use.args["skip_first_minibatch"] and use.window.unit == "minibatch" and len(use.window.times) == 1:
        yield "args.skip_first_minibatch", "skips the only minibatch of the window: give it a second one"


def _levels_of_none(use: Use) -> Iterable[Complaint]:
    if "levels" in use.args.written and not getattr(use.cls, "takes_levels", False):
        yield "args.levels", f"{use.cls.__name__} takes no levels; SparsityLevelParameterPruner does"


def _frequency_of_minibatches(use: Use) -> Iterable[Complaint]:
    if use.args["mini_batch_pruning_frequency"] and use.window.unit == "minibatch":
        message = "is for windows of epochs: in one of minibatches, minibatch_frequency says when masks are computed"
        yield "args.mini_batch_pruning_frequency", message
