"""Groups of elements over several parameters: their norms, their sizes, and factors spread back over the parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from potstill.thinning import ChannelGraph, on_cpu

from ..parts.structures import Group
from ..processes.shards import add_parts, counts_here, first_sharded, here, largest_of_parts, part, parts, span
from .in_place_gradients import flatten, unflatten, wide


class GroupPart(ABC):
    """Some groups, numbered; `strengths` has a value for each. Each element of a tensor is in one group at most.

    Norms, sizes and strengths are float32 for weights in half precision: their squares and quotients leave its range.
    """

    names: list[str]
    strengths: Tensor
    _sharded: Tensor | None = None
    _tensors: list[Tensor]

    @abstractmethod
    def norms(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the Euclidean norm of each group."""

    @abstractmethod
    def largest(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the largest absolute value of each group."""

    @abstractmethod
    def mean(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the mean absolute value of each group."""

    @abstractmethod
    def spread(self, values: Tensor, rest: float) -> list[Tensor]:
        """Return a value for each group, by tensor, broadcasting to its shape; `rest` for what is in no group."""

    @abstractmethod
    def by_name(self, values: Mapping[str, float]) -> Tensor:
        """Return for each group the value of the weight that the schedule listed it by."""

    def tensors(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the tensors that the groups lie in."""
        return [weights[name] for name in self.names]

    def move(self, tensors: Sequence[Tensor]) -> None:
        """Follow the tensors to their device, to a type that is wide enough, and to their parts: call it first."""
        self._sharded, self._tensors = first_sharded(tensors), list(tensors)
        device, dtype = tensors[0].device, wide(tensors)
        if self.strengths.device != device or self.strengths.dtype != dtype:
            self.strengths = self.strengths.to(device, dtype)

    def _of_all(self, values: Tensor, order: float) -> Tensor:
        """Return what all parts of sharded tensors make of partial norms of some order."""
        if self._sharded is None:
            return values
        if order == torch.inf:
            return largest_of_parts(values, self._sharded)
        # Of parts, the squares of Euclidean norms add up, and sums of absolute values as they are.
        return add_parts(values.square_(), self._sharded).sqrt_() if order == 2 else add_parts(values, self._sharded)

    def _reduce(self, tensor: Tensor, order: float, dims: Sequence[int], keepdim: bool) -> Tensor:
        if not tensor.numel():  # a process may have no part of a small tensor
            sizes = [1 if dim in dims else size for dim, size in enumerate(tensor.shape) if keepdim or dim not in dims]
            return torch.zeros(sizes, dtype=self.strengths.dtype, device=tensor.device)
        return torch.linalg.vector_norm(tensor, order, dims, keepdim, dtype=self.strengths.dtype)


class PlainGroups(GroupPart):
    """The structures of weights, each within one weight."""

    @on_cpu
    def __init__(self, entries: Sequence[tuple[str, Group, float]], shapes: Mapping[str, torch.Size]) -> None:
        """Take (weight, group, strength)."""
        self.names = [name for name, _, _ in entries]
        self._inside = [group.inside(len(shapes[name])) for name, group, _ in entries]
        self._thin = [
            torch.empty([1 if dim in inside else size for dim, size in enumerate(shapes[name])])
            for name, inside in zip(self.names, self._inside, strict=True)
        ]
        self.strengths = self._each([strength for _, _, strength in entries])

    def norms(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the Euclidean norm of each group."""
        return self._of_all(flatten(self._reduced(tensors, 2)), 2)

    def largest(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the largest absolute value of each group."""
        return self._of_all(flatten(self._reduced(tensors, torch.inf)), torch.inf)

    def mean(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the mean absolute value of each group."""
        sums = unflatten(self._of_all(flatten(self._reduced(tensors, 1)), 1), self._thin)
        return flatten([s * (s.numel() / t.numel()) for s, t in zip(sums, tensors, strict=True)])

    def spread(self, values: Tensor, rest: float) -> list[Tensor]:
        """Return a value for each group, by tensor; every element is in a group."""
        return [here(value, t) for value, t in zip(unflatten(values, self._thin), self._tensors, strict=True)]

    def by_name(self, values: Mapping[str, float]) -> Tensor:
        """Return for each group its weight's value."""
        return self._each([values[name] for name in self.names]).to(self.strengths)

    @on_cpu
    def _each(self, values: Sequence[float]) -> Tensor:
        pairs = zip(self._thin, values, strict=True)
        return torch.cat([torch.full((thin.numel(),), value, dtype=torch.float64) for thin, value in pairs])

    def _reduced(self, tensors: Sequence[Tensor], order: float) -> list[Tensor]:
        pairs = zip(tensors, self._inside, strict=True)
        if self._sharded is None:
            return [self._reduce(tensor, order, inside, True) for tensor, inside in pairs]
        reduced = []
        for (tensor, inside), thin in zip(pairs, self._thin, strict=True):
            whole = torch.zeros(thin.shape, dtype=self.strengths.dtype, device=self.strengths.device)
            if counts_here(tensor, self._sharded):
                here(whole, tensor).copy_(self._reduce(part(tensor), order, inside, True))
            reduced.append(whole)
        return reduced


class CoupledGroups(GroupPart):
    """Channels: each with all that has to be zero for it to die, in all weights, biases and norms that make it."""

    @on_cpu
    def __init__(
        self, entries: Sequence[tuple[str, int, float]], graph: ChannelGraph, parameters: Collection[str]
    ) -> None:
        """Take (weight, dimension of its outputs, strength); a channel belongs to the first weight that lists it.

        Only `parameters` are drawn to zero: what else makes the channels (a norm of buffers) stays.
        """
        self._parameters = parameters
        self._place = torch.full((graph.count + 1,), -1)
        self._listed: list[str] = []
        strengths: list[float] = []
        for name, dim, strength in entries:
            ids = graph.channels_of(name, dim).unique()
            # A channel that two listed weights make (a residual sum) is one group, with the strength of the first.
            new = ids[(ids > 0) & (self._place[ids] < 0)]
            self._place[new] = torch.arange(len(new)) + len(strengths)
            strengths += [strength] * len(new)
            self._listed += [name] * len(new)
        if not strengths:
            raise ValueError(f"none of the channels of {', '.join(e[0] for e in entries)} can be removed")
        self.strengths = torch.tensor(strengths, dtype=torch.float64)
        self._members(graph)

    def _members(self, graph: ChannelGraph) -> None:
        self.names, self._dims, self._places = [], [], []
        for use in graph.uses:
            place = self._place[use.channels]
            if use.role in ("out", "scale", "shift") and use.name in self._parameters and (place >= 0).any():
                self.names.append(use.name)
                self._dims.append(use.dim)
                # Elements of channels that are not listed go into one further place, which is dropped after the sum.
                self._places.append(torch.where(place < 0, len(self._listed), place))
        self._ranks = [len(graph.shapes[name]) for name in self.names]
        sizes = [torch.Size(graph.shapes[name]).numel() // graph.shapes[name][dim] for name, dim in self._slices()]
        self._counts = self._sum([torch.full((len(p),), float(n)) for p, n in zip(self._places, sizes, strict=True)])

    def _slices(self) -> list[tuple[str, int]]:
        return list(zip(self.names, self._dims, strict=True))

    def norms(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the Euclidean norm of each channel."""
        return self._of_all(self._sum([norm.square() for norm in self._reduced(tensors, 2)]).sqrt(), 2)

    def largest(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the largest absolute value of each channel."""
        values, places = torch.cat(self._reduced(tensors, torch.inf)), torch.cat(self._places_here())
        result = values.new_zeros(len(self._listed) + 1)
        result.scatter_reduce_(0, places.to(values.device), values, "amax")
        return self._of_all(result[:-1], torch.inf)

    def mean(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the mean absolute value of each channel."""
        sums = self._of_all(self._sum(self._reduced(tensors, 1)), 1)
        return sums / self._counts.to(sums)

    def spread(self, values: Tensor, rest: float) -> list[Tensor]:
        """Return a value for each channel, by tensor; `rest` for channels that are not listed."""
        every = torch.cat([values, values.new_full((1,), rest)])
        return [
            every[place.to(values.device)].view([-1 if d == dim else 1 for d in range(rank)])
            for place, dim, rank in zip(self._places_here(), self._dims, self._ranks, strict=True)
        ]

    @on_cpu
    def by_name(self, values: Mapping[str, float]) -> Tensor:
        """Return for each channel the value of the weight that lists it."""
        return torch.tensor([values[name] for name in self._listed]).to(self.strengths)

    def _reduced(self, tensors: Sequence[Tensor], order: float) -> list[Tensor]:
        others = [tuple(d for d in range(t.dim()) if d != dim) for t, dim in zip(tensors, self._dims, strict=True)]
        pairs = zip(parts(tensors), others, strict=True)
        found = [self._reduce(t, order, dims, False) if dims else t.abs().to(self.strengths) for t, dims in pairs]
        if self._sharded is not None:
            found = [f * counts_here(t, self._sharded) for f, t in zip(found, tensors, strict=True)]
        return found

    def _places_here(self) -> list[Tensor]:
        """Return the channel of each index of the parts that are here."""
        if self._sharded is None:
            return self._places
        places = []
        for place, tensor, dim in zip(self._places, self._tensors, self._dims, strict=True):
            start, size = span(tensor)
            places.append(place.narrow(0, start[dim], size[dim]))
        return places

    def _sum(self, values: list[Tensor]) -> Tensor:
        every, places = torch.cat(values), torch.cat(self._places_here())
        return every.new_zeros(len(self._listed) + 1).index_add_(0, places.to(every.device), every)[:-1]
