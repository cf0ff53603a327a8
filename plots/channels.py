"""Channels before and after, by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from potstill.thinning import Recipe, unwrapped

from .style import GREY, LINES, label, panel

Widths = Mapping[str, tuple[int, int]]
"""Layer -> channels before and after."""


def channels(before: nn.Module | Recipe | Widths, after: nn.Module | None = None, *, ax: Any = None) -> Any:
    """Draw a bar a layer: how many output channels it had, and has.

    Args:
        before: the network before thinning; or a recipe, which knows the layers that lost some; or the two by layer.
        after: the thinned network.
        ax: axes to draw into.

    Returns:
        The figure.
    """
    widths = _widths(before, after)
    figure, axis = panel(ax, 8, max(2.5, 0.16 * len(widths)))
    names = list(widths)[::-1]
    shown = [label(name) for name in names]
    axis.barh(shown, [widths[n][0] for n in names], color="none", edgecolor=GREY, label="dense")
    axis.barh(shown, [widths[n][1] for n in names], color=LINES[0], label="kept")
    axis.tick_params(axis="y", labelsize=6)
    axis.set(xlabel="channels")
    axis.set_title("channels kept by layer", loc="left", color=GREY)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.legend(frameon=False, labelcolor=GREY, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def _widths(before: nn.Module | Recipe | Widths, after: nn.Module | None) -> Widths:
    if isinstance(before, Recipe):
        return _of_recipe(before)
    return _of_models(before, after or before) if isinstance(before, nn.Module) else dict(before)


def _of_models(before: nn.Module, after: nn.Module) -> Widths:
    """Output channels of each convolution and Linear."""
    wide = dict(unwrapped(before).named_parameters())
    left = unwrapped(after).named_parameters()
    return {n.removesuffix(".weight"): (len(wide[n]), len(p)) for n, p in left if p.dim() > 1 and n in wide}


def _of_recipe(recipe: Recipe) -> Widths:
    found = [change for change in recipe.tensors if len(change.shape) > 1 and 0 in change.keep]
    return {change.name.removesuffix(".weight"): (change.shape[0], change.new_shape[0]) for change in found}
