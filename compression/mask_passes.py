"""What the fused passes over masked parameters work on: lists of tensors side by side."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .parameter_mask import ParameterMask
from .processes.shards import is_sharded, part, parts


@dataclass
class MaskPasses:
    """Lists of equal length for each pass, made once after each change of masks.

    A pass is one call of a `torch._foreach_*` function over all masked parameters: masks are applied after every step,
    and a call for each parameter costs more than the multiplication where parameters are small.
    """

    hard: tuple[list[Tensor], list[Tensor]] = field(default_factory=lambda: ([], []))
    soft: tuple[list[Tensor], list[Tensor], list[Tensor]] = field(default_factory=lambda: ([], [], []))
    copies: tuple[list[Tensor], list[Tensor]] = field(default_factory=lambda: ([], []))
    gradients: tuple[list[Tensor], list[Tensor]] = field(default_factory=lambda: ([], []))
    sharded: bool = False

    def add(self, parameter: Tensor, entry: ParameterMask) -> None:
        """Enter a parameter under each pass that concerns it."""
        hard, gradient, mask = entry.hard, entry.gradient_mask, entry.mask
        self.sharded |= is_sharded(parameter)
        if hard is not None:
            _append(self.hard, parameter, hard)
        if gradient is not None:
            _append(self.gradients, parameter, gradient)
        if entry.is_soft and entry.dense is not None and mask is not None:
            _append(self.soft, parameter, entry.dense, mask)
            if entry.keeps_copy:
                _append(self.copies, parameter, entry.dense)

    def apply(self, stepped: bool) -> None:
        """Zero what is hidden; dense copies follow the parameters, which a step has moved or others have set."""
        if self.hard[0] or self.soft[0]:  # a step without masks costs nothing
            with torch.no_grad():
                if self.hard[0]:
                    torch._foreach_mul_(*self.here(self.hard))
                if self.soft[0]:
                    parameters, dense, masks = self.here(self.soft)
                    if not stepped:  # nobody has put the copies back: what is hidden is in them alone
                        torch._foreach_copy_(parameters, _with_hidden(parameters, dense, masks))
                    torch._foreach_copy_(dense, parameters)
                    torch._foreach_mul_(parameters, masks)

    def here(self, lists: tuple[list[Tensor], ...]) -> tuple[list[Tensor], ...]:
        """Return the lists of a pass.

        Of sharded parameters the parts, which may lie elsewhere than at the last step.
        """
        return tuple(map(parts, lists)) if self.sharded else lists

    def gradients_here(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the gradients that there are, and their masks."""
        parameters, masks = self.gradients
        pairs = [(p.grad, mask) for p, mask in zip(parameters, masks, strict=True) if p.grad is not None]
        if self.sharded:
            pairs = [(part(gradient), part(mask)) for gradient, mask in pairs]
        return [gradient for gradient, _ in pairs], [mask for _, mask in pairs]

    def is_elsewhere(self) -> bool:
        """Return whether the model was moved to another device or type."""
        parameters, masks, *_ = self.hard if self.hard[0] else self.soft
        if not parameters:
            return False
        parameter, mask = parameters[0], masks[0]
        return parameter.device != mask.device or parameter.dtype != mask.dtype


def _with_hidden(parameters: list[Tensor], dense: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
    """Return the parameters, but the copy's values where a parameter is just what masks make of these."""
    masked = zip(parameters, dense, masks, strict=True)
    return [torch.where(values == copy * mask, copy, values) for values, copy, mask in masked]


def _append(lists: tuple[list[Tensor], ...], *tensors: Tensor) -> None:
    for known, tensor in zip(lists, tensors, strict=True):
        known.append(tensor)
