"""How large a network is when gates are open or shut: its parameters or multiply-adds, as a function of the gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from potstill.thinning import ChannelGraph, on_cpu

from ...files.checked import Field
from .scale_parameters import Layout


class Budget:
    """Size of the network, relative to its size with all gates open, given the probabilities that gates are open.

    A tensor's size is the product of the sizes of its dimensions, and a gated dimension's expected size is a sum of
    probabilities (of independent gates: `expected parameters = sum over tensors of sum_i p_i x sum_j p_j`). The many
    tensors share few such sums, and gates that occur in the same sums, as often, share a block; so the size of any
    network costs a sum by block, one small product of matrix and vector, and one product of gathered sums.

    Attributes:
        total: the size with all gates open, as a number of parameters or multiply-adds.
        blocks: (gates,), the block of each: the size depends on how many gates of each block are open.
    """

    @on_cpu
    def __init__(self, terms: Iterable[tuple[float, list[Tensor]]], constant: float, count: int) -> None:
        """Collect what is summed.

        Args:
            terms: factor and, for each dimension that has gates, the gate of each index (`count` where it has none).
            constant: what is there whatever the gates are.
            count: number of gates.
        """
        self._count = count
        self._cache: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        # Two dimensions with the same uses of the same gates have the same expected size: each such sum is kept once.
        sums: dict[bytes, int] = {}
        rows: list[Tensor] = []
        weights: Counter[tuple[int, ...]] = Counter()
        for factor, dimensions in terms:
            key = []
            for gates in dimensions:
                uses = gates.bincount(minlength=count + 1)
                key.append(sums.setdefault(uses.numpy().tobytes(), len(rows)))
                if key[-1] == len(rows):
                    rows.append(uses)
            # Tensors that are products of the same sums are one term: their factors add up.
            weights[tuple(sorted(key))] += factor  # type: ignore[assignment]  # a Counter of floats
        self._build(rows, weights, constant)
        self.total = 1.0
        self.total = float(self.share(torch.ones(count, dtype=torch.float64)))

    def _build(self, rows: list[Tensor], weights: Counter[tuple[int, ...]], constant: float) -> None:
        uses = torch.stack(rows).double() if rows else torch.zeros(0, self._count + 1, dtype=torch.float64)
        # Gates with the same column of uses are one block. Columns are told apart by a random projection, a product
        # instead of a sort of long rows: two that differ have the same only by chance, in double precision.
        signs = torch.rand(len(uses), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        _, self.blocks = (signs @ uses[:, :-1]).unique(return_inverse=True)
        blocks = int(self.blocks.max()) + 1 if self._count else 0
        member = torch.zeros(blocks, dtype=torch.int64).scatter_(0, self.blocks, torch.arange(self._count))
        width = max(map(len, weights), default=0)
        padded = [key + (len(uses),) * (width - len(key)) for key in weights]  # the last sum is always 1
        # Factors by column, so that a size is a product of gathers however many dimensions a tensor has.
        self._factors = torch.tensor(padded, dtype=torch.int64).reshape(len(padded), width).unbind(1)
        self._weights = torch.tensor(list(weights.values()), dtype=torch.float64)
        self._constant = constant
        self._matrix = torch.cat([uses[:, member], torch.zeros(1, blocks, dtype=torch.float64)])
        self._fixed = torch.cat([uses[:, -1], torch.ones(1, dtype=torch.float64)])

    @classmethod
    def of_parameters(cls, graph: ChannelGraph, names: Iterable[str], layout: Layout) -> Budget:
        """Return the number of elements of the named parameters."""
        return cls.of_terms(graph, layout, [(name, 1.0, None) for name in names])

    @classmethod
    def of_macs(cls, graph: ChannelGraph, layout: Layout) -> Budget:
        """Return the multiply-adds of one sample in convolutions, linear layers and matrix products."""
        layers = [(layer.weight, float(layer.positions), None) for layer in graph.layers]
        return cls.of_terms(graph, layout, layers, float(graph.other_macs))

    @classmethod
    def of_terms(
        cls,
        graph: ChannelGraph,
        layout: Layout,
        terms: Iterable[tuple[str, float, tuple[int, ...] | None]],
        constant: float = 0.0,
    ) -> Budget:
        """Return a sum over parameters: a factor times the sizes of the named dimensions (None: of all)."""
        return cls(*_collect(terms, constant, graph, layout), layout.count)

    def state_dict(self) -> dict[str, Any]:
        """Return the factors and what is fixed: for sizes that were measured."""
        return {"weights": self._weights.clone(), "constant": self._constant, "total": self.total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        fields = Field(state)
        self._weights = fields["weights"].tensor(tuple(self._weights.shape)).double()
        self._constant, self.total = fields["constant"].number(), max(fields["total"].number(), 1e-9)
        self._cache.clear()

    def share(self, probabilities: Tensor) -> Tensor:
        """Return the expected size relative to `total`: a scalar, differentiable in the probabilities (gates,)."""
        weights, fixed, matrix, blocks, *factors = self._tensors(probabilities.device, probabilities.dtype)
        # Linear in each block's sum of probabilities, so one addition a gate and a matrix product as small as there are
        # blocks.
        grouped = probabilities.new_zeros(matrix.shape[1]).index_add(0, blocks, probabilities)
        sums = torch.addmv(fixed, matrix, grouped)
        for factor in factors:
            # The expectation of a product of independent gates is the product of expectations; within one tensor's two
            # dimensions a channel that occurs in both is counted as if independent.
            weights = weights * sums[factor]
        return (weights.sum() + self._constant) / self.total

    def shares(self, counts: Tensor) -> Tensor:
        """Return the size relative to `total` for each row of (rows, blocks): how many gates of each block are open."""
        weights, fixed, matrix, _, *factors = self._tensors(counts.device, counts.dtype)
        # Whole rows of candidates in one matrix product: `nearest` asks for some 10,000 at a time.
        sums = torch.addmm(fixed, counts, matrix.t())
        sizes = weights.expand(len(counts), -1)
        for factor in factors:
            sizes = sizes * sums[:, factor]
        return (sizes.sum(1) + self._constant) / self.total

    def _tensors(self, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        if (device, dtype) not in self._cache:
            real = [tensor.to(device, dtype) for tensor in (self._weights, self._fixed, self._matrix)]
            self._cache[device, dtype] = [*real, *(tensor.to(device) for tensor in (self.blocks, *self._factors))]
        return self._cache[device, dtype]


def _collect(
    tensors: Iterable[tuple[str, float, tuple[int, ...] | None]], constant: float, graph: ChannelGraph, layout: Layout
) -> tuple[list[tuple[float, list[Tensor]]], float]:
    """Split tensors into those with gated dimensions and those that are there in any case."""
    terms = []
    for name, factor, chosen in tensors:
        dimensions = []
        for dim, size in enumerate(graph.shapes[name]):
            if chosen is not None and dim not in chosen:
                continue
            gates = layout.gates[graph.channels_of(name, dim)]
            if (gates < layout.count).any():
                dimensions.append(gates)
            else:
                factor *= size
        if dimensions:
            terms.append((factor, dimensions))
        else:
            constant += factor
    return terms, constant
