"""Learning-rate schedulers that schedules can name beside torch's own."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from math import cos, pi, prod
from typing import Annotated, Any, Literal

from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers

from .declare.arguments import Count, NonNegative, Positive, Range
from .declare.cross_checks import Complaint, apart
from .declare.registry import register


@register("lr_schedulers")
class MultiStepMultiGammaLR(torch_schedulers.LRScheduler):
    """At each milestone multiplies the rate by that milestone's own factor."""

    def __init__(
        self, optimizer: Optimizer, milestones: Sequence[Count], gammas: Sequence[Positive], last_epoch: int = -1
    ) -> None:
        """Take milestones in order, and as many factors; at one that stands twice both factors act.

        Raises:
            ValueError: a milestone is before the one that precedes it, or there is not one factor for each.
        """
        found = [message for _, message in self.problems({"milestones": milestones, "gammas": gammas}, {})]
        if found:
            raise ValueError("; ".join(found))
        self.milestones, self.gammas = list(milestones), list(gammas)
        super().__init__(optimizer, last_epoch)

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, Any]) -> Iterable[Complaint]:
        """Return what a schedule's arguments get wrong together."""
        return apart(_unequal(args), _falling(args))

    def get_lr(self) -> list[float]:  # type: ignore[override]  # torch's allows tensors too
        """Return the rates of all groups at `last_epoch`."""
        factor = prod(self.gammas[: bisect_right(self.milestones, self.last_epoch)])
        return [float(base) * factor for base in self.base_lrs]


def _unequal(args: Mapping[str, Any]) -> Iterable[Complaint]:
    milestones, gammas = args["milestones"], args["gammas"]
    if len(milestones) != len(gammas):
        yield "gammas", f"there are {len(milestones)} milestones but {len(gammas)} gammas"


def _falling(args: Mapping[str, Any]) -> Iterable[Complaint]:
    milestones = list(args["milestones"])
    if milestones != sorted(milestones):
        yield "milestones", f"the milestones {milestones} must rise"


@register("lr_schedulers")
class PolynomialLR(torch_schedulers.PolynomialLR):
    """Torch's polynomial decay, rate x (1 - epoch / total_iters)^power; `T_max` is Distiller's name for the end."""

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: Count | None = None,
        power: Positive = 1.0,
        last_epoch: int = -1,
        T_max: Count | None = None,
    ) -> None:
        """Take the epoch at which the rate is zero (5 if neither name is given, as in torch) and the power.

        Raises:
            ValueError: both `total_iters` and `T_max` are given.
        """
        if total_iters is not None and T_max is not None:
            raise ValueError("give either total_iters or T_max: they are the same")
        super().__init__(optimizer, total_iters or T_max or 5, power, last_epoch)


Shape = Literal["linear", "cosine"]
Epoch = Annotated[int, Range(0)]


@register("lr_schedulers")
class PiecewiseLR(torch_schedulers.LRScheduler):
    """Goes from rate to rate, piece by piece; between two pieces and after the last the rate stays.

    Each piece is [first epoch, last epoch, rate at the first, rate at the last, `linear` or `cosine`]. The rates are
    those of the optimizer's first group; groups of other rates keep their proportion to it.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        pieces: Sequence[tuple[Epoch, Count, NonNegative, NonNegative, Shape]],
        last_epoch: int = -1,
    ) -> None:
        """Take the pieces, in order.

        Raises:
            ValueError: there is none, or one begins before the piece before it ends.
        """
        found = [message for _, message in self.problems({"pieces": pieces}, {})]
        if found:
            raise ValueError("; ".join(found))
        self.pieces = [(first, end, start, goal, shape) for first, end, start, goal, shape in pieces]
        super().__init__(optimizer, last_epoch)

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, Any]) -> Iterable[Complaint]:
        """Complain of pieces that overlap or run backwards."""
        last = 0
        for number, (first, end, *_) in enumerate(args["pieces"]):
            if first < last or end <= first:
                yield (
                    "pieces",
                    f"piece {number + 1}, from epoch {first} to {end}, must begin at {last} or later and rise",
                )
            last = end
        if not args["pieces"]:
            yield "pieces", "there is no piece: give at least one"

    def get_lr(self) -> list[float]:  # type: ignore[override]  # torch's allows tensors too
        """Return the rates of all groups at `last_epoch`."""
        rates = [float(base) for base in self.base_lrs]
        begun = [piece for piece in self.pieces if piece[0] <= self.last_epoch]
        if not begun or not rates[0]:
            return rates
        first, end, start, goal, shape = begun[-1]
        done = min(1.0, (self.last_epoch - first) / (end - first))
        done = done if shape == "linear" else (1 - cos(pi * done)) / 2
        return [(start + (goal - start) * done) * rate / rates[0] for rate in rates]
