"""How masks look at a prompt and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from potstill.thinning.files.html import MOST, html_lines, html_table, more
from potstill.thinning.files.text import printable

from .parameter_mask import ParameterMask

HEADS = ("parameter", "shape", "hidden", "hidden (%)", "by")


class Row(NamedTuple):
    """A parameter with masks: of `held` elements `hidden` are hidden; of a sharded one each process knows its own."""

    name: str
    shape: str
    hidden: int
    held: int
    owners: str


class ShownMasks(Mapping[str, ParameterMask]):
    """Masks of parameters by name, which tell what they hide."""

    def __repr__(self) -> str:
        """Return how many parameters are masked, and a line for each of them."""
        lines = [f"{r.name} ({r.shape}): {r.hidden:,} of {r.held:,} hidden by {r.owners}" for r in rows(self)]
        return listed(headline(self), lines)

    def _repr_html_(self) -> str:
        """Return how many parameters are masked, and a row for each of them."""
        shown = [(r.name, r.shape, r.hidden, 100 * r.hidden / max(r.held, 1), r.owners) for r in rows(self)]
        return html_lines(headline(self)) + (html_table(HEADS, shown) if shown else "")


def headline(masks: Mapping[str, ParameterMask]) -> str:
    """Return how many parameters are masked."""
    found = rows(masks)
    hidden = sum(row.hidden for row in found)
    return f"masks of {len(found)} of {len(masks)} parameters, which hide {hidden:,} weights"


def rows(masks: Mapping[str, ParameterMask]) -> list[Row]:
    """Return the parameters of which something is hidden."""
    found = (_row(name, mask) for name, mask in masks.items() if mask.owners)
    return [row for row in found if row.hidden]


def listed(head: str, lines: Sequence[str]) -> str:
    """Return a head, and below it the first of some lines."""
    return "\n".join([head, *(f"  {printable(line)}" for line in [*lines[:MOST], *more(len(lines))])])


def _row(name: str, mask: ParameterMask) -> Row:
    owners = ", ".join(f"{owner} ({owned.mode})" for owner, owned in mask.owners.items())
    shape = next(iter(mask.owners.values())).mask.shape
    return Row(name, "x".join(map(str, shape)), *mask.hidden_here, owners)
