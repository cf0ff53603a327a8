"""The masks of one parameter, each with its owner, and how they are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from potstill.thinning.files.text import printable

from .files.checked import Field
from .processes.shards import every, part

Mode = Literal["hard", "forward", "copy"]
"""How a mask treats what it hides.

`hard`: gone for good, its gradient is stopped and it is zeroed again after each optimizer step.
`forward`: zero in the forward pass; its gradient flows and one optimizer step moves it off zero, so it can come back.
`copy`: like `forward`, but the optimizer updates a dense copy that keeps the hidden values.
"""


@dataclass
class OwnedMask:
    """One owner's mask of one parameter: a tensor of its shape and dtype, 0 where it hides and 1 elsewhere.

    In `copy` mode what survives may be scaled by another factor than 1.
    """

    mask: Tensor
    mode: Mode = "hard"
    stops_gradient: bool = True

    def acts_as(self, other: OwnedMask) -> bool:
        """Return whether another mask, of zeros and ones as this one, treats what it hides alike."""
        return self.mode == other.mode != "copy" and self.stops_gradient == other.stops_gradient


KINDS: dict[str, Callable[[OwnedMask], bool]] = {
    "all": lambda owned: True,
    "hard": lambda owned: owned.mode == "hard",
    "gradient": lambda owned: owned.stops_gradient,
}
"""Which masks are multiplied for which purpose."""


@dataclass
class ParameterMask:
    """All masks of one parameter. `dense` holds the unmasked values while a `forward` or `copy` mask hides some."""

    name: str
    owners: dict[str, OwnedMask] = field(default_factory=dict)
    dense: Tensor | None = None
    _combined: dict[str, Tensor | None] = field(default_factory=dict, repr=False, compare=False)
    _modes: set[Mode] = field(default_factory=set, repr=False, compare=False)

    def __repr__(self) -> str:
        """Return what is hidden, and by whom: the tensors themselves say little."""
        owners = ", ".join(f"{owner} ({owned.mode})" for owner, owned in self.owners.items())
        return printable(f"ParameterMask({self.name}: {self.hidden_here[0]:,} hidden by {owners or 'nobody'})")

    def put(self, owner: str, owned: OwnedMask) -> None:
        """Give an owner its mask.

        What is combined so far is kept where it can be, since of a thousand owners on one parameter each would
        otherwise multiply all thousand masks: with one more mask, or one that hides more than it did.
        """
        before = self.owners.get(owner)
        self.owners[owner] = owned
        # A mask that hides more than before, times the old product, is the new product: zeros stay zeros.
        only_more = before is None or (before.acts_as(owned) and bool((part(owned.mask) <= part(before.mask)).all()))
        if not only_more:
            self.changed()
        self._modes.add(owned.mode)
        for kind, known in self._combined.items():
            if KINDS[kind](owned):
                self._combined[kind] = owned.mask if known is None else known * owned.mask

    def changed(self) -> None:
        """Forget what is combined: masks are others now."""
        self._combined.clear()
        self._modes = {owned.mode for owned in self.owners.values()}

    def is_elsewhere(self, parameter: Tensor) -> bool:
        """Return whether the parameter was moved to another device or type."""
        mask = next((owned.mask for owned in self.owners.values()), parameter)
        return mask.device != parameter.device or mask.dtype != parameter.dtype

    def move(self, parameter: Tensor) -> None:
        """Give all of them the device and type of the parameter."""
        if not self.is_elsewhere(parameter):
            return
        self.changed()
        for owned in self.owners.values():
            owned.mask = owned.mask.to(parameter.device, parameter.dtype)
        self.dense = None if self.dense is None else self.dense.to(parameter.device, parameter.dtype)

    def reshape(self, shrink: Callable[[Tensor], Tensor]) -> None:
        """Keep of each mask and of the dense values what `shrink` keeps of a tensor of the old shape."""
        self.changed()
        for owned in self.owners.values():
            owned.mask = shrink(owned.mask).contiguous()
        self.dense = None if self.dense is None else shrink(self.dense).contiguous()

    def let_go(self, elements: Tensor, parameter: Tensor, change: Callable[[Tensor], Tensor]) -> None:
        """Hide none of the elements (bool) any more.

        The dense values become those of the parameter where an element was hidden; the others go through `change`.
        """
        if self.dense is not None:
            # A hidden element of the dense copy holds what it was before it was hidden; what thinning put into the
            # parameter is what counts now.
            hidden = elements if self.mask is None else elements & (self.mask == 0)
            self.dense = torch.where(hidden, parameter, change(self.dense))
        self.changed()
        for owned in self.owners.values():
            owned.mask = owned.mask.where(~elements | (owned.mask != 0), 1)

    def follow(self, parameter: Tensor) -> None:
        """Take the parameter's values over into the dense ones, where they are not hidden."""
        if self.dense is not None:
            self.dense = parameter.clone() if self.mask is None else torch.where(self.mask != 0, parameter, self.dense)
        self.changed()

    def way_back(self) -> Callable[[], None]:
        """Return what puts the masks and dense values of now back."""
        # Thinning replaces masks and changes none in place, so that keeping the old ones costs no copy.
        masks, dense = {owner: owned.mask for owner, owned in self.owners.items()}, self.dense

        def go_back() -> None:
            self.dense = dense
            self.changed()
            for owner, mask in masks.items():
                self.owners[owner].mask = mask

        return go_back

    @property
    def hidden(self) -> int:
        """How many elements the masks hide together."""
        return 0 if self.mask is None else self.mask.numel() - int(self.mask.count_nonzero())

    @property
    def hidden_here(self) -> tuple[int, int]:
        """Of the elements that this process holds, how many are hidden, and how many there are."""
        held = None if self.mask is None else part(self.mask)
        return (0, 0) if held is None else (held.numel() - int(held.count_nonzero()), held.numel())

    @property
    def mask(self) -> Tensor | None:
        """The masks of all owners combined, or None where there is none."""
        return self._product("all")

    @property
    def hard(self) -> Tensor | None:
        """The permanent part of the mask."""
        return self._product("hard")

    @property
    def gradient_mask(self) -> Tensor | None:
        """The part of the mask that stops gradients."""
        return self._product("gradient")

    @property
    def is_soft(self) -> bool:
        """Return whether hidden values may come back."""
        return bool(self._modes - {"hard"})

    @property
    def keeps_copy(self) -> bool:
        """Return whether the optimizer updates the dense copy."""
        return "copy" in self._modes

    def _product(self, kind: str) -> Tensor | None:
        """Return the masks of a kind multiplied, None where there are none."""
        if kind not in self._combined:
            masks = [owned.mask for owned in self.owners.values() if KINDS[kind](owned)]
            self._combined[kind] = reduce(torch.mul, masks) if masks else None
        return self._combined[kind]


def is_binary(mask: Tensor) -> bool:
    """Return whether all elements are 0 or 1."""
    return every((mask == 0) | (mask == 1))


def packed(owned: OwnedMask) -> dict[str, Any]:
    """Return a mask as plain data: one byte an element where the mask is 0 or 1, as nearly all are."""
    mask = owned.mask.bool() if is_binary(owned.mask) else owned.mask
    return {"mask": mask, "mode": owned.mode, "stops_gradient": owned.stops_gradient}


def unpacked(stored: Field, parameter: Tensor) -> tuple[Tensor, Any, bool]:
    """Return mask, mode and whether gradients stop, as `packed` stored them.

    Raises:
        CheckpointError: something else is stored, or a mask of another shape than the parameter's.
    """
    mask = stored["mask"].tensor(parameter.shape, torch.bool, parameter.dtype)
    return mask, stored["mode"].text(get_args(Mode)), stored["stops_gradient"].flag()
