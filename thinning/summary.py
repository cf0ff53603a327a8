"""Readable texts: a recipe, the channel classes of a model."""

from __future__ import annotations

from collections.abc import Sequence

from .graph import ChannelClass, ChannelGraph
from .recipe_data import Kept, RecipeData


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A plain table with aligned columns."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def recipe_text(recipe: RecipeData) -> str:
    """What a recipe removes, what stays and why."""
    parts = [f"Recipe for {recipe.model}: " + _headline(recipe)]
    rows = [(c.name, _shape(c.shape), _shape(c.new_shape)) for c in recipe.tensors]
    if rows:
        parts.append(table(("tensor", "before", "after"), rows))
    if recipe.folds:
        parts.append("constants folded into: " + ", ".join(fold.name for fold in recipe.folds))
    parts += _kept("zero or constant, but kept", recipe.refused) + _kept("never removable", recipe.frozen)
    parts += [f"note: {note}" for note in recipe.notes]
    return "\n".join(parts)


def _headline(recipe: RecipeData) -> str:
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
    return [f"{title}:"] + [f"  {item.channels} channels of {item.use}: {item.reason}" for item in kept]


def channels_text(graph: ChannelGraph) -> str:
    """Each class of channels: size, status and reason, uses as parameter[dim]."""
    return table(("channels", "status", "uses", "reason"), [_row(group) for group in graph.classes()])


def _row(group: ChannelClass) -> tuple[object, ...]:
    uses = " ".join(f"{name}[{dim}]" for name, dim, role in group.uses if role != "vector") or group.uses[0][0]
    return len(group.channels), group.status, uses, group.reason
