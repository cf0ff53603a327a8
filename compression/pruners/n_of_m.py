"""N:M sparsity: of each M consecutive inputs of an output, N stay. GPUs compute 2:4 in half the time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..declare.arguments import Count, Names
from ..declare.cross_checks import Complaint, Shapes, apart
from ..declare.names import resolve
from ..declare.registry import register
from ..parts.structures import CHANNELS, oriented, placed, shape_problem
from ..processes.shards import is_sharded, part, span, with_part
from .base import Pruner, View


@register("pruners")
class NMPruner(Pruner):
    """Keeps the n largest absolute values of each m consecutive inputs (Mishra et al. 2021).

    For a convolution the inputs are its input channels, at each output and position.
    """

    def __init__(self, weights: Names, n: Count = 2, m: Count = 4) -> None:
        """Take the weights, how many stay, and of how many."""
        self.weights, self.n, self.m = weights, n, m

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
        """Complain of more to keep than there are, or weights that groups of m do not divide."""
        return apart(_too_many(args), _undivided(args, shapes))

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `weights`.

        Raises:
            ValueError: groups of m do not divide the inputs of a weight.
        """
        names = resolve(self.weights, model)
        args = {"weights": names, "n": self.n, "m": self.m}
        found = [problem for _, problem in self.problems(args, Shapes(model))]
        if found:
            raise ValueError("; ".join(found))
        self._dims = {name: oriented(CHANNELS, name, model).kept[0] for name in names}

    def targets(self) -> Iterable[str]:
        """Return the listed weights."""
        return self._dims

    def masks(self, view: View) -> dict[str, Tensor]:
        """Return the masks by parameter."""
        return {name: self._mask(name, dim, view) for name, dim in self._dims.items()}

    def _mask(self, name: str, dim: int, view: View) -> Tensor:
        weight, alive = view.weights[name], view.alive(name)
        _must_hold_groups(name, weight, dim, self.m)
        size = part(weight).abs().movedim(dim, -1)
        if alive is not None:
            # Below every absolute value: what is pruned already goes first, also among zeros.
            size = size.masked_fill(~part(alive).movedim(dim, -1), -1)
        groups = size.reshape(-1, self.m)
        # Stable, so that among equal values the first stay, and every rank and run chooses alike (`topk` does not).
        order = groups.argsort(dim=1, descending=True, stable=True)
        keep = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order[:, : self.n], True)
        return view.still(name, with_part(weight, keep.view(size.shape).movedim(-1, dim)))


def _must_hold_groups(name: str, weight: Tensor, dim: int, m: int) -> None:
    """Check that no group lies on two processes."""
    if not is_sharded(weight):
        return
    (start, size), whole = span(weight), weight.shape[dim]
    if size[dim] != whole and (start[dim] % m or size[dim] % m):
        raise ValueError(
            f"{name} is sharded along its inputs in pieces that {m} does not divide: shard its outputs, or an even part"
        )


def _too_many(args: Mapping[str, Any]) -> Iterable[Complaint]:
    if args["n"] > args["m"]:
        yield "n", f"cannot keep {args['n']} of {args['m']}"


def _undivided(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    for name in args["weights"]:
        problem = shape_problem(CHANNELS, "NMPruner", name, shapes[name])
        if not problem and shapes[name][placed(CHANNELS, name, shapes).kept[0]] % args["m"]:
            problem = f"{args['m']} does not divide the inputs of {name} of shape {tuple(shapes[name])}"
        if problem:
            yield f"weights.{name}", problem
