"""The pictures of a trajectory, and of the symmetry that a network finds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.plots.style import GREY, LINES, colour_bar, figure_of, label, save

from ..lab.symmetric_weights import Weights
from ..monitors.trajectory_record import Record, records

WEIGHTS, PANELS = 4, 12
"""Values drawn of a parameter, and parameters that they are drawn of: those that went farthest."""


def plot_trajectory(tensors: Mapping[str, Tensor], folder: Path) -> list[Path]:
    """Draw norms over time, the weights that moved most over time, the path in the plane of its first two components.

    Writes `norms`, `weights` and `path`, each as PNG and SVG.

    Args:
        tensors: the contents of a trajectory's file.
        folder: where the pictures go.
    """
    steps, found = tensors["steps"].numpy(), records(tensors)
    figure, (axis,) = figure_of(1, height=4)
    for number, (name, record) in enumerate(found.items()):
        style = ("-", "--", ":", "-.")[number // len(LINES) % 4]
        axis.plot(steps, record.norm, style, color=LINES[number % len(LINES)], label=label(name))
    axis.set(xlabel="step", title="Euclidean norms", ylim=(0, None))
    place: Any = {"loc": "upper left", "bbox_to_anchor": (1, 1), "ncols": 1 + len(found) // 26}
    axis.legend(frameon=False, labelcolor=GREY, fontsize=7, **place)
    return [*save(figure, folder / "norms"), *_plot_weights(steps, found, folder), *_plot_path(steps, found, folder)]


def _plot_weights(steps: Any, found: Mapping[str, Record], folder: Path) -> list[Path]:
    farthest = sorted(found, key=lambda name: -float(found[name].moved().max()))[:PANELS]
    shown = {name: record for name, record in found.items() if name in farthest}
    figure, axes = figure_of(len(shown))
    for axis, (name, record) in zip(axes, shown.items(), strict=True):
        for number, colour in zip(record.moved().argsort(descending=True)[:WEIGHTS].tolist(), LINES, strict=False):
            place = str(list(record.place(number)))
            axis.plot(steps, record.values[:, number], color=colour, linewidth=1, label=place)
        axis.set(xlabel="step", title=label(name))
        axis.legend(frameon=False, labelcolor=GREY, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return save(figure, folder / "weights")


def _plot_path(steps: Any, found: Mapping[str, Record], folder: Path) -> list[Path]:
    path, shares = principal_path(torch.cat([record.values for record in found.values()], dim=1))
    figure, (axis,) = figure_of(1, width=6.5, height=5)
    axis.plot(*path.T, color=GREY, linewidth=0.8)
    dots = axis.scatter(*path.T, c=steps[: len(path)], cmap=_colours_of_time(), s=9, zorder=2)
    for place, text in ((0, "start"), (-1, "end")):
        axis.annotate(text, path[place].tolist(), xytext=(5, 5), textcoords="offset points", color=GREY)
    axis.set(title="path in the plane of its first two principal components")
    axis.margins(0.1)
    axis.set_xlabel(f"first component ({100 * shares[0]:.0f} % of the variance)")
    axis.set_ylabel(f"second component ({100 * shares[1]:.0f} %)")
    colour_bar(figure, dots, axis, "step")
    return save(figure, folder / "path")


def plot_symmetry(weights: Weights, folder: Path) -> list[Path]:
    """Draw the weights of both hidden units by input, as bars: `symmetry.png` and `symmetry.svg`."""
    figure, (axis,) = figure_of(1, width=6.5, height=3)
    for unit, row in enumerate(weights.hidden.tolist()):
        places = [place + 0.36 * (unit - 0.5) for place in range(1, len(row) + 1)]
        axis.bar(places, row, width=0.34, color=LINES[unit], label=f"hidden unit {unit + 1}", zorder=2)
    axis.axvline((1 + weights.hidden.shape[1]) / 2, color=GREY, linestyle="--", linewidth=1)
    axis.set(xlabel="input", title="weights from the inputs to the hidden units")
    axis.legend(frameon=False, labelcolor=GREY, loc="upper left", bbox_to_anchor=(1, 1))
    return save(figure, folder / "symmetry")


def principal_path(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the path (T', 2) of records (T, n) along two principal components, and these' shares of the variance.

    Records with a NaN, which is what thinning leaves behind, are left out.
    """
    known = values[~values.isnan().any(1)].double()
    left, sizes, _ = torch.linalg.svd(known - known.mean(0), full_matrices=False)
    left, sizes = (F.pad(t, (0, max(0, 2 - len(sizes)))) for t in (left, sizes))
    return (left * sizes)[:, :2], sizes[:2] ** 2 / (sizes**2).sum().clamp_min(1e-30)


def _colours_of_time() -> Any:
    """Return a map from blue to orange, both of which show on white and on black."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("time", [LINES[0], LINES[3], LINES[4]])
