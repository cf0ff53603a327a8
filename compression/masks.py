"""Masks with owners: who zeroes which elements of which parameter.

Each policy owns its mask of a parameter; the parameter obeys all of them (logical AND). The masks act on the values
of plain parameters, outside autograd: modules, state-dict keys and optimizers stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from potstill.thinning import Magnitude, Recipe, Rescaling, unwrapped
from potstill.thinning.names import spelling

from .declare.names import respelled
from .files.checked import CheckpointError, Field
from .mask_passes import MaskPasses
from .masks_repr import ShownMasks
from .parameter_mask import Mode, OwnedMask, ParameterMask, is_binary, packed, unpacked
from .processes.shards import every, part, placed, reshard


class Masks(ShownMasks):
    """The `zeros_mask_dict`: a `ParameterMask` for every named parameter of a model.

    The parameters hold masked values at all times, but between `restore_dense` and `apply`, when the optimizer acts.
    """

    def __init__(self, model: nn.Module) -> None:
        """Start without masks."""
        self._parameters = dict(unwrapped(model).named_parameters())
        self._masks = {name: ParameterMask(name) for name in self._parameters}
        self._spell = spelling(self._parameters)
        self.touched: dict[tuple[str, str], None] = {}  # parameter and owner of masks that ranks have yet to compare
        self._plan: MaskPasses | None = None
        self._restored = False  # whether an optimizer step is due: what is in the parameters then is all there is

    def __getitem__(self, name: str) -> ParameterMask:
        """Return the masks of a parameter, with or without `module.` in its name."""
        return self._masks[self._spell(name)]

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the parameters."""
        return iter(self._masks)

    def __len__(self) -> int:
        """Return the number of parameters."""
        return len(self._masks)

    @torch.no_grad()
    def set(self, owner: str, name: str, mask: Tensor, mode: Mode = "hard", stops_gradient: bool = True) -> None:
        """Give the owner's mask of a parameter a new value and apply it.

        Where a mask holds factors other than 0 and 1 they scale what survives: in `copy` mode at each forward pass, in
        the other modes once, now (they have no unscaled values to start from the next time).

        Args:
            owner: who sets it; other owners' masks stay.
            name: the parameter.
            mask: 0 (hide) or 1 (keep) per element, or a factor, any dtype, the parameter's shape.
            mode: see `Mode`.
            stops_gradient: whether gradients of hidden elements are zeroed before the optimizer's step.

        Raises:
            ValueError: the shape is another one, or a value is not finite.
        """
        name = self._spell(name)
        entry, parameter = self._masks[name], self._parameters[name]
        if mask.shape != parameter.shape:
            raise ValueError(f"mask of {name} has shape {tuple(mask.shape)}, the parameter {tuple(parameter.shape)}")
        own = placed(mask, parameter)
        if mask.dtype != torch.bool and not is_binary(own):
            if not every(torch.isfinite(own)):
                raise ValueError(f"mask of {name} by {owner} has values that are not finite")
            if mode != "copy":
                # Factors are applied once, to the values; kept as a mask they would be multiplied in at every step.
                part(self.dense(name)).mul_(part(own).where(part(own) != 0, 1))
                own = (own != 0).to(own.dtype)
        # Taken before the mask acts: afterwards the hidden values, which may come back, are gone.
        if mode != "hard" and entry.dense is None:
            entry.dense = parameter.detach().clone()
        entry.put(owner, OwnedMask(own, mode, stops_gradient))
        self.touched[name, owner] = None
        self._remask(entry, parameter)

    @torch.no_grad()
    def drop(self, owner: str) -> None:
        """Forget all masks of an owner; where a dense copy is kept, the hidden values come back."""
        for name, entry in self._masks.items():
            if entry.owners.pop(owner, None) is not None:
                self.touched[name, owner] = None
                entry.changed()
                self._remask(entry, self._parameters[name])

    @torch.no_grad()
    def harden(self, owner: str) -> None:
        """Make the owner's masks permanent."""
        for name, entry in self._masks.items():
            if owner in entry.owners:
                self.set(owner, name, entry.owners[owner].mask)

    def must_be_of(self, model: nn.Module) -> None:
        """Check that the model has the parameters that it had, in the shapes of their masks.

        Raises:
            ValueError: one was replaced since, or thinned by others.
        """
        reshard(unwrapped(model))
        present = dict(unwrapped(model).named_parameters())
        for name, parameter in self._parameters.items():
            if present.get(name) is not parameter:
                raise ValueError(
                    f"{name} is not the parameter that it was when the scheduler was made (a new layer, a conversion,"
                    " sharding): make scheduler and optimizer after such changes"
                )
            # One owner speaks for all, who may be a thousand: `set` and `thin` keep their masks in one shape.
            for owner, owned in islice(self._masks[name].owners.items(), 1):
                if owned.mask.shape != parameter.shape:
                    shapes = f"{tuple(parameter.shape)}, its mask by {owner} {tuple(owned.mask.shape)}"
                    raise ValueError(f"{name} has shape {shapes}: thin with the scheduler that has the masks")

    def of(self, owner: str) -> dict[str, Tensor]:
        """Return the owner's masks by parameter."""
        return {name: entry.owners[owner].mask for name, entry in self._masks.items() if owner in entry.owners}

    def dense(self, name: str) -> Tensor:
        """Return the values that pruners rank and optimizers update: the dense copy's, else the parameter's own.

        Who changes them in place calls `refresh` afterwards.
        """
        name = self._spell(name)
        kept = self._masks[name].dense
        return self._parameters[name].detach() if kept is None else kept

    @torch.no_grad()
    def replace(self, name: str, values: Tensor) -> None:
        """Give a parameter new dense values; masks go on to hide what they hide."""
        name = self._spell(name)
        part(self.dense(name)).copy_(part(values))
        self._remask(self._masks[name], self._parameters[name])

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the parameters follow their dense copies."""
        plan = self._planned()
        parameters, dense, masks = plan.here(plan.soft)
        if parameters:
            torch._foreach_copy_(parameters, dense)
            torch._foreach_mul_(parameters, masks)

    def follow(self) -> None:
        """Go where the model is, if it was moved to another device or type."""
        if any(entry.is_elsewhere(self._parameters[name]) for name, entry in self._masks.items() if entry.owners):
            self._plan = None
            self._planned()

    def apply(self) -> None:
        """Zero what the masks hide, in one pass over all masked parameters: after an optimizer step.

        Also after other values were loaded into the model: dense copies take them over, and keep what is hidden.
        """
        stepped, self._restored = self._restored, False
        self._planned().apply(stepped)

    def mask_gradients(self) -> None:
        """Zero the gradients of what is hidden for good: before an optimizer step."""
        gradients, masks = self._planned().gradients_here()
        if gradients:
            with torch.no_grad():
                torch._foreach_mul_(gradients, masks)

    def restore_dense(self) -> None:
        """Put the dense copies back: before an optimizer step."""
        self._restored = True
        plan = self._planned()
        parameters, dense = plan.here(plan.copies)
        if parameters:
            with torch.no_grad():
                torch._foreach_copy_(parameters, dense)

    def thin(self, recipe: Recipe) -> Callable[[], None]:
        """Follow a thinned model: slice all masks and dense copies, and let go of what took a folded constant.

        Returns:
            what puts everything back.
        """
        # Taken first: whatever fails below, or an interrupt, leaves masks as they were.
        ways_back = [entry.way_back() for entry in self._masks.values()]

        def undo() -> None:
            for go_back in ways_back:
                go_back()
            self._plan = None

        try:
            self.reshape(recipe.selectors())
            self.admit((fold.name, fold.amounts) for fold in recipe.folds)
            self._rescale(recipe.rescalings)
            self._follow(recipe.magnitudes)
        except BaseException:  # Ctrl-C too
            undo()
            raise
        return undo

    def reshape(self, select: Mapping[str, Any]) -> None:
        """Keep of each mask and dense copy what thinning kept of its parameter.

        Args:
            select: name -> function that takes a tensor of the old shape to one of the new; buffers have no masks.
        """
        for name, shrink in select.items():
            if name in self:
                self[name].reshape(shrink)
        self._plan = None

    def _rescale(self, norms: Iterable[Rescaling]) -> None:
        """Scale dense copies as thinning scaled their weights; where 0 does not stay 0, let masks go."""
        for norm in norms:
            name = self._spell(norm.name)
            if name in self._masks:
                parameter = self._parameters[name].detach()
                filled = (parameter != 0) & bool(norm.offset)  # with an offset a zero becomes the offset, and stays it
                self._masks[name].let_go(filled, parameter, norm.scaled)
        self._plan = None

    def _follow(self, magnitudes: Iterable[Magnitude]) -> None:
        """Give dense copies what thinning made of their parameters, where these are not hidden."""
        for name in (self._spell(magnitude.name) for magnitude in magnitudes):
            if name in self._masks:
                self._masks[name].follow(self._parameters[name].detach())
        self._plan = None

    def admit(self, constants: Iterable[tuple[str, Tensor]]) -> None:
        """Let masks go of what took a constant folded by thinning; give dense copies that constant too."""
        for name, amounts in constants:
            name = self._spell(name)
            if name in self._masks:
                parameter = self._parameters[name].detach()
                # The constant of removed channels now lives in these elements (of a bias, as a rule): a mask that hid
                # them would change the function of the thinned network at the next step.
                added = amounts.to(parameter)
                self._masks[name].let_go(added != 0, parameter, added.add)
        self._plan = None

    def state_dict(self) -> dict[str, Any]:
        """Return all masks with their owners and modes, and the dense copies: tensors and plain data."""
        masked = {name: entry.owners for name, entry in self._masks.items() if entry.owners}
        masks = {name: {owner: packed(owned) for owner, owned in owners.items()} for name, owners in masked.items()}
        return {"masks": masks, "dense": {n: e.dense for n, e in self._masks.items() if e.dense is not None}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take masks and dense copies from `state_dict()`; those of before are forgotten. Raises as `checked` does."""
        self.checked(state)()

    def checked(self, state: Mapping[str, Any]) -> Callable[[], None]:
        """Check a state, and return what takes it.

        Raises:
            CheckpointError: (a ValueError) a mask is of an unknown parameter or another shape, or a field is not sound.
        """
        kinds = Field(state, "masks").mapping()
        fields = Field({kind: respelled(stored.value, self._parameters) for kind, stored in kinds.items()}, "masks")
        masks, dense = fields["masks"].mapping(), fields["dense"].mapping()
        unknown = sorted((masks.keys() | dense.keys()) - self._masks.keys())
        if unknown:
            raise CheckpointError(f"masks of parameters that the model does not have: {', '.join(unknown)[:200]}")
        found, copies = list[tuple[Any, ...]](), dict[str, Tensor]()
        for name, owners in masks.items():
            parameter = self._parameters[name].detach()
            if name in dense:
                copies[name] = dense[name].tensor(parameter.shape, parameter.dtype)
            found += [(owner, name, *unpacked(stored, parameter)) for owner, stored in owners.mapping().items()]
        return partial(self._take, found, copies)

    def _take(self, found: Iterable[tuple[Any, ...]], copies: Mapping[str, Tensor]) -> None:
        self._masks = {name: ParameterMask(name) for name in self._parameters}
        self._plan, self._restored = None, False
        for name, values in copies.items():
            self._masks[name].dense = placed(values, self._parameters[name].detach())
        for arguments in found:
            self.set(*arguments)

    def _remask(self, entry: ParameterMask, parameter: Tensor) -> None:
        """Give the parameter its masked values, and forget a dense copy that nobody needs any more."""
        self._plan = None
        if entry.dense is not None:
            # What a permanent mask hides must not come back from the copy when the soft masks go.
            if entry.hard is not None:
                part(entry.dense).mul_(part(entry.hard))
            part(parameter).copy_(part(entry.dense))
        if entry.mask is not None:
            part(parameter).mul_(part(entry.mask))
        if not entry.is_soft:
            entry.dense = None

    def _planned(self) -> MaskPasses:
        if self._plan is None or self._plan.is_elsewhere():
            self._plan = MaskPasses()
            for name, entry in self._masks.items():
                if entry.owners:
                    entry.move(self._parameters[name])
                    self._plan.add(self._parameters[name], entry)
        return self._plan
