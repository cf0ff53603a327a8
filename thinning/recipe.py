"""A recipe: what thinning removes, as data that can be printed, saved, compared and applied again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.optim import Optimizer

from .apply import apply
from .changes import AttributeChange, Folding, Magnitude, Rescaling, TensorChange
from .files.html import html_lines, html_table
from .files.text import printable
from .names import holders, normalise, spelling, unwrapped
from .new_biases import weight_of
from .odd_widths import fit_layouts
from .recipe_json import decode, encode
from .running.copies import named_tensors

Change = TypeVar("Change", TensorChange, AttributeChange, Folding, Rescaling, Magnitude)


@dataclass(frozen=True)
class Kept:
    """Channels that could not be removed: how many, first use, and why."""

    channels: int
    use: str
    reason: str

    def __str__(self) -> str:
        """Return the three in words."""
        return f"{self.channels} channel{'s' * (self.channels != 1)} of {self.use}: {self.reason}"


@dataclass(frozen=True)
class Recipe:
    """What was removed from a model, and how exactly. Printable; `to_json`, `from_json`, `apply`.

    `biases` are those that layers without one get, `frozen` lists the channels that can never be removed, `refused`
    those that were dead but had to stay. `parameters` and `macs` are (before, after); `max_relative_difference` the
    measured max |difference| / max |output|.
    """

    model: str
    tensors: tuple[TensorChange, ...] = ()
    attributes: tuple[AttributeChange, ...] = ()
    folds: tuple[Folding, ...] = ()
    rescalings: tuple[Rescaling, ...] = ()
    magnitudes: tuple[Magnitude, ...] = ()
    biases: tuple[str, ...] = ()
    frozen: tuple[Kept, ...] = ()
    refused: tuple[Kept, ...] = ()
    notes: tuple[str, ...] = ()
    max_relative_difference: float = 0.0
    parameters: tuple[int, int] = (0, 0)
    macs: tuple[int, int] = (0, 0)
    inputs: Any = field(default=None, compare=False)

    @property
    def removes_nothing(self) -> bool:
        """Return whether applying this recipe leaves every shape as it is."""
        return not self.tensors

    def selectors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return parameter name -> function that takes a tensor of the old shape to what is kept of it."""
        return {change.name: change.select for change in self.tensors}

    def __str__(self) -> str:
        return recipe_text(self)

    def __repr__(self) -> str:
        """Return one line: `print` shows the rest."""
        return printable(f"Recipe for {self.model}: {_headline(self)}")

    def _repr_html_(self) -> str:
        """Return what was removed, what stays and why."""
        rows = [(c.name, _shape(c.shape), _shape(c.new_shape)) for c in self.tensors]
        kept = [(name, k.channels, k.use, k.reason) for name in ("refused", "frozen") for k in getattr(self, name)]
        shown = html_table(("tensor", "before", "after"), rows) if rows else ""
        shown += html_table(("kept", "channels", "of", "why"), kept) if kept else ""
        return html_lines(repr(self)) + shown + html_lines(*(f"note: {note}" for note in self.notes))

    def to_json(self) -> str:
        """Return the recipe as JSON text."""
        return encode(vars(self))

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Read a recipe; every field is checked and nothing is executed. Raises `ThinningError`."""
        fields = decode(text)
        kept = {name: tuple(Kept(*values) for values in fields[name]) for name in ("frozen", "refused")}
        return Recipe(**{**fields, **kept})

    def apply(self, model: nn.Module, masks: Any = None, optimizer: Optimizer | None = None) -> None:
        """Remove the same channels from another copy of the model (an average of weights, a fresh dense one), in place.

        Raises `ThinningError`, with nothing changed, if a name or a shape does not fit.
        """
        model = unwrapped(model)
        apply(self.named_for(model), model, masks, optimizer)
        fit_layouts(model)
        remember(model, self)

    def named_for(self, model: nn.Module) -> Recipe:
        """Return the recipe with the names that tensors and modules have in a model, wrapped or not."""
        spell = spelling(named_tensors(model))
        new = {name: f"{spell(weight_of(name)).removesuffix('weight')}bias" for name in self.biases}
        return replace(
            self,
            tensors=tuple(replace(change, name=spell(change.name)) for change in self.tensors),
            folds=tuple(replace(fold, name=new.get(fold.name) or spell(fold.name)) for fold in self.folds),
            biases=tuple(new.values()),
            rescalings=tuple(
                replace(norm, name=spell(norm.name), module=_holder(model, norm.module, norm.attribute))
                for norm in self.rescalings
            ),
            magnitudes=tuple(replace(m, name=spell(m.name), directions=spell(m.directions)) for m in self.magnitudes),
            attributes=tuple(
                replace(change, module=_holder(model, change.module, change.name)) for change in self.attributes
            ),
        )

    def then(self, other: Recipe) -> Recipe:
        """Return the recipe that does this one and then another one of the same network, thinned by this one.

        What stays, and the notes, are the other's; the difference is the larger one. Raises `ThinningError` if the
        shapes do not follow each other.
        """
        return replace(
            other,
            model=self.model,
            tensors=_one_after_another(self.tensors, [t for t in other.tensors if t.what not in _names(self.biases)]),
            attributes=_one_after_another(self.attributes, other.attributes),
            folds=_one_after_another(_sliced(self.folds, other.tensors), other.folds),
            rescalings=_one_after_another(self.rescalings, other.rescalings),
            magnitudes=_one_after_another(self.magnitudes, other.magnitudes),
            biases=(*self.biases, *other.biases),
            notes=tuple(dict.fromkeys(self.notes + other.notes)),
            max_relative_difference=max(self.max_relative_difference, other.max_relative_difference),
            parameters=(self.parameters[0], other.parameters[1]),
            macs=(self.macs[0], other.macs[1]),
        )


def _holder(model: nn.Module, path: str, attribute: str) -> str:
    """Return the path of the module that has the attribute; the same one where there is none."""
    return next((name for name, _ in holders(model, path, attribute)), path)


_RECIPES: WeakKeyDictionary[nn.Module, list[Recipe]] = WeakKeyDictionary()
"""What was removed from each model that is still in use, in order: `save` needs all of it."""


def remember(model: nn.Module, recipe: Recipe) -> None:
    """Note that a recipe was applied to a model."""
    with suppress(TypeError):  # a model whose class defines equality and no hash
        _RECIPES.setdefault(model, []).append(recipe)


def whole_recipe(model: nn.Module, recipe: Recipe) -> Recipe:
    """Return all recipes of a model as one, if `recipe` is one of them; else itself."""
    with suppress(TypeError):
        known = _RECIPES.get(model, [])
        if any(one is recipe for one in known):
            return reduce(Recipe.then, known)
    return recipe


def _one_after_another(first: Sequence[Change], second: Sequence[Change]) -> tuple[Change, ...]:
    found = {change.what: change for change in first}
    for change in second:
        before = found.get(change.what)
        found[change.what] = change if before is None else before.then(change)
    return tuple(found.values())


def _names(names: Sequence[str]) -> set[str]:
    return {normalise(name) for name in names}


def _sliced(folds: Sequence[Folding], changes: Sequence[TensorChange]) -> list[Folding]:
    """Return constants added before some changes as if they were added after them."""
    found = {change.what: change for change in changes}
    return [replace(f, amounts=found[f.what].select(f.amounts)) if f.what in found else f for f in folds]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a plain table with aligned columns."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def recipe_text(recipe: Recipe) -> str:
    """Return what a recipe removes, what stays and why."""
    parts = [f"Recipe for {recipe.model}: " + _headline(recipe)]
    rows = [(c.name, _shape(c.shape), _shape(c.new_shape)) for c in recipe.tensors]
    if rows:
        parts.append(table(("tensor", "before", "after"), rows))
    if recipe.folds:
        parts.append("constants folded into: " + ", ".join(fold.name for fold in recipe.folds))
    if recipe.biases:
        parts.append("biases added: " + ", ".join(recipe.biases))
    if recipe.rescalings:
        parts.append(
            "rescaled for means over fewer channels: " + ", ".join(dict.fromkeys(r.name for r in recipe.rescalings))
        )
    if recipe.magnitudes:
        parts.append("rescaled for norms of fewer weights: " + ", ".join(m.name for m in recipe.magnitudes))
    parts += _kept("zero or constant, but kept", recipe.refused) + _kept("never removable", recipe.frozen)
    parts += [f"note: {note}" for note in recipe.notes]
    return "\n".join(parts)


def _headline(recipe: Recipe) -> str:
    if recipe.removes_nothing:
        return "no channel is dead, nothing is removed"
    (p0, p1), (m0, m1) = recipe.parameters, recipe.macs
    return (
        f"{p0:,} -> {p1:,} parameters, {m0:,} -> {m1:,} multiply-adds;"
        f" max |difference| / max |output| = {recipe.max_relative_difference:.1e}"
    )


def _shape(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)


def _kept(title: str, kept: Sequence[Kept]) -> list[str]:
    if not kept:
        return []
    return [f"{title}:"] + [f"  {item}" for item in kept]
