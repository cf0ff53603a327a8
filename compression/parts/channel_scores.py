"""How much each output of a layer matters, by many measures from the literature; the lowest are pruned.

A new score is one function with `@score(name, needs)`. It is then known to `prune_channels` and to schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Need = Literal["", "gradients", "curvature", "activations"]


@dataclass(frozen=True)
class Outputs:
    """What is known of the outputs of one layer, a row for each output.

    Attributes:
        weights: (outputs, elements).
        gradients: of one minibatch's loss, the same shape; scores that need them are averaged over minibatches.
        curvature: the diagonal of the loss's Hessian, the same shape.
        activations: the mean absolute value of each output, (outputs,).
        norm: the scale of the normalisation behind the layer, (outputs,); None where there is none.
        generator: for scores by chance.
    """

    weights: Tensor
    gradients: Tensor | None = None
    curvature: Tensor | None = None
    activations: Tensor | None = None
    norm: Tensor | None = None
    generator: torch.Generator | None = None

    def known(self, what: Need) -> Tensor:
        """Return what a score needs.

        Raises:
            ValueError: it was not measured.
        """
        value: Tensor | None = getattr(self, what)
        if value is None:
            raise ValueError(f"its {what} are not known")
        return value


@dataclass(frozen=True)
class ChannelScore:
    """A score by name.

    Attributes:
        name: what it is called.
        needs: what beside weights it looks at.
        of: gives one number for each output.
        grouped: whether all that belongs to a channel counts, also the weights that read it and the norms behind it
            (Fang et al. 2023, DepGraph, section 3.3), or only the layers that make it.
    """

    name: str
    needs: Need
    of: Callable[[Outputs], Tensor]
    grouped: bool = False


_scores: dict[str, ChannelScore] = {}


def score(
    name: str, needs: Need = "", grouped: bool = False
) -> Callable[[Callable[[Outputs], Tensor]], Callable[[Outputs], Tensor]]:
    """Register a function of `Outputs` as the score `name`."""

    def enter(function: Callable[[Outputs], Tensor]) -> Callable[[Outputs], Tensor]:
        _scores[name] = ChannelScore(name, needs, function, grouped)
        return function

    return enter


def channel_scores() -> Mapping[str, ChannelScore]:
    """Return all scores by name."""
    return _scores


def find_score(name: str) -> ChannelScore:
    """Return a score by its name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in _scores:
        raise ValueError(f"no score {name!r}: one of {', '.join(sorted(_scores))}")
    return _scores[name]


@score("l1", grouped=True)
def l1(outputs: Outputs) -> Tensor:
    """Return the sum of absolute weights (Li et al. 2017, Pruning Filters for Efficient ConvNets)."""
    return outputs.weights.abs().sum(1)


@score("l2", grouped=True)
def l2(outputs: Outputs) -> Tensor:
    """Return the sum of squared weights (He et al. 2018, Soft Filter Pruning)."""
    return outputs.weights.square().sum(1)


@score("bn_scale")
def bn_scale(outputs: Outputs) -> Tensor:
    """Return |gamma| of the normalisation behind (Liu et al. 2017, Network Slimming).

    Raises:
        ValueError: no normalisation with a scale follows the layer.
    """
    if outputs.norm is None:
        raise ValueError("no normalisation with a scale follows it")
    return outputs.norm.abs()


@score("fpgm", grouped=True)
def fpgm(outputs: Outputs) -> Tensor:
    """Return the sum of distances to all filters of the layer (He et al. 2019, FPGM, equation 4).

    The filter nearest to the geometric median can be replaced best by the others.
    """
    flat = outputs.weights.double()  # distances by matrix products, which need the precision
    return torch.cdist(flat, flat).sum(1)


@score("lamp")
def lamp(outputs: Outputs) -> Tensor:
    """Return the squared norm over the sum of those that are no smaller (Lee et al. 2021, LAMP, equation 5)."""
    # The score of the largest filter is 1 in every layer, so that a global ranking takes a layer's last filter when
    # only such are left.
    squares = outputs.weights.double().square().sum(1)
    order = squares.argsort(stable=True)
    rest = squares[order].flip(0).cumsum(0).flip(0)  # each filter's own and all larger ones'
    ranked = torch.where(rest > 0, squares[order] / rest.clamp_min(torch.finfo(rest.dtype).tiny), 0)
    return torch.empty_like(squares).index_put_((order,), ranked)


@score("taylor", needs="gradients")
def taylor(outputs: Outputs) -> Tensor:
    """Return (sum of gradient x weight)^2 of one minibatch (Molchanov et al. 2019, equation 8)."""
    return (outputs.known("gradients") * outputs.weights).sum(1).square()


@score("hessian", needs="curvature")
def hessian(outputs: Outputs) -> Tensor:
    """Return the sum of 1/2 curvature x weight^2 (LeCun et al. 1990, Optimal Brain Damage, equation 5).

    The curvature is Hutchinson's estimate (see `hutchinson`); its sign is dropped, since far from a minimum it may be
    negative.
    """
    return (0.5 * outputs.known("curvature") * outputs.weights.square()).sum(1).abs()


@score("activation", needs="activations")
def activation(outputs: Outputs) -> Tensor:
    """Return the mean absolute output (Molchanov et al. 2017, section 2.2)."""
    return outputs.known("activations")


@score("random")
def random(outputs: Outputs) -> Tensor:
    """Return uniform random numbers: what every other score has to beat."""
    return torch.rand(len(outputs.weights), generator=outputs.generator, device="cpu")
