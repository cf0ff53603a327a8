"""One threshold over all listed parameters: the smallest absolute values of the whole network go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..declare.arguments import Fraction, Names
from ..declare.cross_checks import Complaint, Given, apart
from ..declare.names import is_pattern, resolve
from ..declare.registry import register
from ..parts.kth_smallest import chunks, kth_smallest
from ..parts.selection import count
from ..parts.sparsity_rates import Rate, agp, constant, falling
from ..processes.shard_selection import first_of
from ..processes.shards import add_parts, count_of, first_sharded, part, with_part
from .base import Pruner, View
from .follow_activations import is_norm

NORMS_ONLY = "{} fit parameters of norms only, which have to be named in full"


@torch.no_grad()
def zero_smallest(parameters: Iterable[Tensor], number: int) -> None:
    """Set the `number` smallest absolute values of all parameters together to zero, in place.

    Of equal values those that come first in memory go. Needs memory for one chunk of 2^20 elements and a histogram, no
    copy of the parameters and no mask: training on needs one (see `GlobalMagnitudePruner`).

    Raises:
        ValueError: there are fewer values than that, or one is not a number.
    """
    tensors = [parameter.detach() for parameter in parameters]
    if number == 0:
        return
    cut = kth_smallest(tensors, number)
    ties = cut.ties
    for tensor in tensors:
        if not _is_dense(tensor):
            raise ValueError(f"a tensor of shape {tuple(tensor.shape)} skips or shares memory: make it contiguous")
        for chunk in chunks(tensor, _chunk_size(tensor)):
            keep, ties = _above(chunk, cut.value, ties)
            chunk.mul_(keep)


def masks_of_smallest(weights: Mapping[str, Tensor], alive: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """Return masks (bool) that hide exactly `number` elements: what is not alive, then the smallest absolute values.

    Args:
        weights: by name; where `alive` is False they are zero.
        alive: where parameters live, for those that have a mask already.
        number: how many elements of all to hide; if more are not alive, all of them are hidden.
    """
    dead = sum(count_of(~mask) for mask in alive.values())
    if number <= dead:
        return dict(alive)
    cut = kth_smallest(list(weights.values()), number)
    # Pruned weights are zeros and among the smallest: at a threshold of 0 they are part of the ties.
    ties = cut.ties - (dead if cut.value == 0 else 0)
    if first_sharded(list(weights.values())) is not None:
        return _masks_of_parts(weights, alive, cut.value, ties)
    masks = {}
    for name, weight in weights.items():
        values = weight if _is_dense(weight) else weight.contiguous()
        mask = torch.empty_like(values, dtype=torch.bool)
        size = _chunk_size(weight)
        living = chunks(torch.empty_like(mask).copy_(alive[name]), size) if name in alive else repeat(None)
        for place, chunk, live in zip(chunks(mask, size), chunks(values, size), living, strict=False):
            keep, ties = _above(chunk, cut.value, ties, live)
            place.copy_(keep)
        masks[name] = mask
    return masks


def _masks_of_parts(
    weights: Mapping[str, Tensor], alive: Mapping[str, Tensor], value: float, ties: int
) -> dict[str, Tensor]:
    """Return the same masks for sharded weights, each process those of its parts."""
    masks = {}
    for name, weight in weights.items():
        size = part(weight).abs().flatten()
        live = part(alive[name]).flatten() if name in alive else torch.ones_like(size, dtype=torch.bool)
        equal = (size == value) & live
        # Ties are divided in the order of the weights and, within one, of the whole tensor's elements: as in one
        # process.
        here = min(ties, int(add_parts(equal.sum(), weight)))
        keep = (size >= value) & live
        if here:
            keep &= ~first_of(equal, here, weight)
        ties -= here
        masks[name] = with_part(weight, keep.view(part(weight).shape))
    return masks


def _above(chunk: Tensor, value: float, ties: int, live: Tensor | None = None) -> tuple[Tensor, int]:
    """Return which elements stay, and how many of those equal to the value are still to go in later chunks."""
    size = chunk.abs()
    keep = size >= value
    if live is not None:
        keep &= live
    if ties:
        # Of values equal to the threshold the first ones go, as many as are asked: half of a tensor of zeros, say.
        equal = ((size == value) & keep).nonzero().flatten()[:ties]
        keep[equal] = False
        ties -= len(equal)
    return keep, ties


def _chunk_size(tensor: Tensor) -> int:
    """Return a size that fits the cache, and keeps torch on one thread: on busy cores threads wait for each other."""
    return 1 << 15 if tensor.is_cpu else 1 << 22


def _is_dense(tensor: Tensor) -> bool:
    """Return whether the tensor's elements fill a stretch of memory, in whatever order of dimensions."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(order).is_contiguous()


class GlobalPruner(Pruner):
    """Ranks the elements of all listed parameters together."""

    rate: Rate
    weights: Names
    of: str

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, Any]) -> Iterable[Complaint]:
        """Complain of patterns that fit nothing but norms."""
        return _norms_only(args, shapes)

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `weights`; parameters of norms stay out unless they are named in full."""
        listed = [self.weights] if isinstance(self.weights, str) else self.weights
        # Norms' scales are small in number and near 1: in a common ranking they would hardly ever go, and where one
        # does a whole channel goes with it.
        full = {name for text in listed if not is_pattern(text) for name in resolve(text, model)}
        self._names = [name for name in resolve(listed, model) if name in full or not _of_norm(name, model)]
        if not self._names:
            raise ValueError(NORMS_ONLY.format(", ".join(listed)))

    def targets(self) -> Iterable[str]:
        """Return the parameters that are ranked."""
        return self._names

    def masks(self, view: View) -> dict[str, Tensor]:
        """Return the masks by parameter at this step's sparsity."""
        weights = {name: view.weights[name] for name in self._names}
        alive = {name: mask for name in self._names if (mask := view.alive(name)) is not None}
        total = sum(weight.numel() for weight in weights.values())
        dead = sum(count_of(~mask) for mask in alive.values())
        level = self.rate(view.progress)
        number = dead + count(level, total - dead) if self.of == "alive" else count(level, total)
        if number == 0:
            return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        return masks_of_smallest(weights, alive, number)


def _norms_only(args: Mapping[str, Any], shapes: Mapping[str, Any]) -> Iterable[Complaint]:
    model: nn.Module | None = getattr(shapes, "model", None)
    if model is None or not isinstance(args, Given):
        return
    listed = args.whole("weights")
    if all(map(is_pattern, listed)) and all(_of_norm(name, model) for name in args["weights"]):
        yield "weights", NORMS_ONLY.format(", ".join(listed))


def _of_norm(name: str, model: nn.Module) -> bool:
    return is_norm(model.get_submodule(name.rpartition(".")[0]))


@register("pruners")
class GlobalMagnitudePruner(GlobalPruner):
    """Hides a constant fraction of all listed elements together, those of smallest absolute value (Han et al. 2015)."""

    def __init__(self, desired_sparsity: Fraction, weights: Names, of: Literal["total", "alive"] = "total") -> None:
        """Take the fraction, the parameters, and what it is a fraction of.

        `of: alive` takes the fraction anew of what still lives at each of the window's times, as iterative pruning does
        (Frankle and Carbin 2019): 0.2 leaves 0.8, 0.64, 0.512 ... of the weights.
        """
        self.rate, self.weights, self.of = constant(desired_sparsity), weights, of


@register("pruners")
class GlobalMagnitudePruner_AGP(GlobalPruner):  # noqa: N801  (named like the others)
    """Like `GlobalMagnitudePruner`, along the schedule of `rates.agp`."""

    def __init__(self, initial_sparsity: Fraction, final_sparsity: Fraction, weights: Names) -> None:
        """Take the fraction of all elements to hide at the window's first time, the one at its last, the parameters."""
        self.rate, self.weights, self.of = agp(initial_sparsity, final_sparsity), weights, "total"

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, Any]) -> Iterable[Complaint]:
        """Complain of patterns that fit nothing but norms, and a sparsity that does not rise."""
        return apart(_norms_only(args, shapes), falling(args))
