"""Penalties of single elements: L1 and L2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..declare.arguments import Strengths
from ..declare.names import resolve_mapping
from ..declare.registry import register
from ..processes.shards import add_parts, counts_here, first_sharded, part, parts
from ..steps import Step
from .base import Regularizer, refuse_complex
from .in_place_gradients import Penalty, Term, add_penalties, flatten, unflatten

AT_ONCE = 2**20
"""Up to this many elements are treated as one vector."""
Criterion = Literal["Max", "Mean_Abs"] | None


class Elements(Term):
    """Sum of strength x |w|, or of strength x w^2 / 2."""

    def __init__(self, strengths: Sequence[float], power: int) -> None:
        """Take the strength of each tensor, and 1 or 2."""
        self.strengths, self.power = torch.tensor(strengths, dtype=torch.float64, device="cpu"), power
        self._common = strengths[0] if len(set(strengths)) == 1 else None
        self._sizes: list[int] = []
        self._each = self.strengths

    def value(self, tensors: list[Tensor]) -> tuple[Tensor, Any]:
        """Return the sum; the slopes are kept: sign (0 at 0) or value, times the strength where that differs."""
        if (sharded := first_sharded(tensors)) is not None:
            return self._sharded(tensors, sharded)
        few = sum(map(Tensor.numel, tensors)) <= AT_ONCE and len({tensor.dtype for tensor in tensors}) == 1
        return self._at_once(tensors) if few else self._one_by_one(tensors)

    def add_gradients(self, tensors: list[Tensor], grads: list[Tensor], kept: Any, scale: Tensor) -> None:
        """Add the slopes."""
        if not isinstance(kept, Tensor):
            torch._foreach_addcmul_(grads, kept, list((self.strengths.to(scale) * scale).unbind()))
            return
        factor = 1.0 if self._common is None else self._common
        if scale.is_cpu:
            torch._foreach_add_(grads, unflatten(kept, tensors), alpha=factor * scale.item())
        else:  # no wait for a GPU
            torch._foreach_add_(grads, unflatten(kept * (factor * scale), tensors))

    def _at_once(self, tensors: list[Tensor]) -> tuple[Tensor, Any]:
        """Compute all elements in one vector: of few, calls cost more than what they compute."""
        vector = flatten(tensors)
        slopes = vector.sign() if self.power == 1 else vector
        if self._common is not None:
            return _dot(vector, slopes) * (self._common / self.power), slopes
        sizes = [tensor.numel() for tensor in tensors]
        if sizes != self._sizes or self._each.device != vector.device or self._each.dtype != vector.dtype:
            self._sizes = sizes
            self._each = self.strengths.to(vector).repeat_interleave(torch.tensor(sizes, device=vector.device))
        slopes = slopes * self._each
        return _dot(vector, slopes) / self.power, slopes

    def _sharded(self, tensors: list[Tensor], sharded: Tensor) -> tuple[Tensor, Any]:
        """Compute on parts of tensors; the value is that of all parts."""
        own = parts(tensors)
        pairs = list(zip(own, tensors, strict=True))
        _, slopes = self._one_by_one(own)
        value, _ = self._one_by_one([t if counts_here(whole, sharded) else t[:0] for t, whole in pairs])
        return add_parts(value, sharded), slopes

    def _one_by_one(self, tensors: list[Tensor]) -> tuple[Tensor, Any]:
        """Compute one by one, without copies of all; the slopes are yet to be multiplied by the strengths."""
        self.strengths = self.strengths.to(tensors[0].device)
        # |x| = x sign(x) and x^2 = x x: the value is a dot product with the slope, which the gradient needs anyway.
        slopes = torch._foreach_sign(tensors) if self.power == 1 else tensors
        sums = torch.stack([_dot(w.flatten(), s.flatten()) for w, s in zip(tensors, slopes, strict=True)])
        return self.strengths.to(sums).dot(sums) / self.power, slopes


def _dot(values: Tensor, slopes: Tensor) -> Tensor:
    # Half precision ends at 65504, which a sum of squares passes soon.
    return values.dot(slopes) if values.dtype.itemsize > 2 else values.float().dot(slopes.float())


class ElementRegularizer(Regularizer):
    """Adds a penalty of each element of the listed parameters."""

    power: int
    has_proximal_step = True

    def __init__(self, reg_regims: Strengths, threshold_criteria: Criterion = None) -> None:
        """Take `reg_regims`: parameter name or pattern -> strength.

        With `threshold_criteria` (either has the same effect), elements whose absolute value is at most the strength
        become zero at the times that the policy's `threshold_at` says.
        """
        self.reg_regims, self.threshold_criteria = reg_regims, threshold_criteria

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `reg_regims`."""
        self._strengths = resolve_mapping(self.reg_regims, model)
        refuse_complex(self._strengths, model)
        self._term = Elements(list(self._strengths.values()), self.power)

    def loss(self, weights: Mapping[str, Tensor], step: Step) -> Tensor:
        """Return the penalty."""
        return add_penalties(torch.zeros((), device=next(iter(weights.values())).device), self.penalties(weights))[0]

    def penalties(self, weights: Mapping[str, Tensor]) -> Sequence[Penalty]:
        """Return the penalty as one term."""
        return [Penalty(self._term, [weights[name] for name in self._strengths])]

    def threshold(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return masks that keep absolute values above the strength."""
        if self.threshold_criteria is None:
            return {}
        return {name: weights[name].abs() > strength for name, strength in self._strengths.items()}

    def shrinks(self) -> Iterable[str]:
        """Return the listed parameters."""
        return self._strengths

    def targets(self) -> Iterable[str]:
        """Return the parameters that the threshold acts on."""
        return self._strengths if self.threshold_criteria else ()


@register("regularizers")
class L1Regularizer(ElementRegularizer):
    """Adds strength x sum of absolute values for each listed parameter.

    Its proximal step is soft thresholding by rate x strength (Daubechies et al. 2004).
    """

    power = 1

    def proximal(self, weights: Mapping[str, Tensor], rates: Mapping[str, float]) -> None:
        """Draw each element towards zero by rate x strength, and not beyond."""
        for name, strength in self._strengths.items():
            weight = part(weights[name])
            # The minimiser of 1/2 (x - w)^2 + t |x|: sign(w) max(|w| - t, 0), with exact zeros, which no gradient step
            # gives.
            weight.copy_(F.softshrink(weight, rates[name] * strength))


@register("regularizers")
class L2Regularizer(ElementRegularizer):
    """Adds strength / 2 x sum of squares for each listed parameter: what `weight_decay` is in SGD, by parameter.

    Its proximal step divides by 1 + rate x strength.
    """

    power = 2

    def proximal(self, weights: Mapping[str, Tensor], rates: Mapping[str, float]) -> None:
        """Shrink each element."""
        for name, strength in self._strengths.items():
            # The minimiser of 1/2 (x - w)^2 + t/2 x^2.
            part(weights[name]).div_(1 + rates[name] * strength)
