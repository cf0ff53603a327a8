"""What a schedule says of gates, and which arguments fit together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch

from ...declare.arguments import Fraction, Names, NonNegative, Positive, Range
from ...declare.cross_checks import Complaint, Use, apart
from ..base import Regularizer
from .cross_checks import aims, compiled, directions, gaps, stretch


@dataclass(eq=False)
class GateArguments(Regularizer):
    """The arguments of `L0Regularizer`. Exactly one of `strength` and the targets says what the gates are for.

    Attributes:
        weights: weights of the convolutions, Linears or norms whose output channels get gates.
        strength: weight of the penalty, which is the mean probability of a gate that it is not 0.
        target_sparsity: share of all the network's parameters that thinning shall remove.
        target_macs: share of the network's multiply-adds that thinning shall leave.
        target_latency: share of the time of a forward pass, on the device where it is trained, that thinning shall
            leave.
        target_milliseconds: the same as a time.
        latency_batch: batch size of a latency.
        droprate_init: probability, at first, of a concrete variable below 1/2; 0.05 starts open on a trained network.
        gate_lr: learning rate of the gates' own Adam; by default 16 / (steps in the window), from 0.01 to 0.2, with
            which gates can cross from open to shut in the time there is.
        multiplier_lr: learning rate of the multiplier that enforces a target.
        ramp: part of the window in which a target is approached; in the rest it is held.
        sampling: one draw of the gates for a `minibatch`, or one for each `example` (more noise, and the gates then
            multiply activations: this costs time and memory).
        allow_inexact: a target also counts channels that a LayerNorm or GroupNorm averages over, and thinning removes
            them: the function then changes a little.
        recalibrate: so many of the window's last minibatches give BatchNorm its statistics for the folded network.
        temperature: of the concrete distribution.
        stretch: the interval that the concrete variable is stretched to.
    """

    weights: Names
    strength: NonNegative | None = None
    target_sparsity: Fraction | None = None
    target_macs: Fraction | None = None
    target_latency: Fraction | None = None
    target_milliseconds: Positive | None = None
    latency_batch: Annotated[int, Range(1, 4096)] = 1
    droprate_init: Annotated[float, Range(0.001, 0.999)] = 0.5
    gate_lr: Positive | None = None
    multiplier_lr: Positive = 0.5
    ramp: Fraction = 0.8
    sampling: Literal["minibatch", "example"] = "minibatch"
    allow_inexact: bool = False
    recalibrate: Annotated[int, Range(0)] = 4
    temperature: Positive = 2 / 3
    stretch: tuple[float, float] = (-0.1, 1.1)

    def __post_init__(self) -> None:
        """Check what belongs together.

        Raises:
            ValueError: says all that does not.
        """
        found = [message for _, message in self.problems(vars(self), {})]
        if found:
            raise ValueError("; ".join(found))

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
        """Return what a schedule's arguments get wrong together."""
        return apart(aims(args), stretch(args), compiled(args, shapes), directions(args, shapes))

    @classmethod
    def misuses(cls, use: Use) -> Iterable[Complaint]:
        """Yield a window with gaps."""
        if problem := gaps(use.window):
            yield "frequency", problem
