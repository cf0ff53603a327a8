"""The weights that pruners rank: dense values, or those of convolutions with the BatchNorm behind them folded in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..masks import Masks
from .host import Host


class DenseWeights(Mapping[str, Tensor]):
    """The dense values of all parameters by name, looked up when asked for."""

    def __init__(self, masks: Masks) -> None:
        """Take what knows the dense values."""
        self._masks = masks

    def __getitem__(self, name: str) -> Tensor:
        """Return the dense values of a parameter."""
        return self._masks.dense(name)

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the parameters."""
        return iter(self._masks)

    def __len__(self) -> int:
        """Return the number of parameters."""
        return len(self._masks)


class FoldedWeights(Mapping[str, Tensor]):
    """Weights times gamma / sqrt(running variance + eps) where a BatchNorm follows directly; others as they are."""

    def __init__(self, weights: Mapping[str, Tensor], scheduler: Host) -> None:
        """Take the plain weights, and the scheduler that knows model and channel graph."""
        self._weights, self._scheduler = weights, scheduler

    def __getitem__(self, name: str) -> Tensor:
        """Return the folded values of a parameter."""
        weight = self._weights[name]
        if name not in self._norms:
            return weight
        path, norm, dim = self._norms[name]
        gamma = self._weights.get(f"{path}.weight", norm.weight.detach())  # of a hidden filter too, where one is kept
        scale = torch.rsqrt(self._variance(norm) + norm.eps) * gamma
        return weight * scale.view([-1 if d == dim else 1 for d in range(weight.dim())]).to(weight)

    def _variance(self, norm: _BatchNorm) -> Tensor:
        """Rank 0's: running statistics are each rank's own until the next forward pass of data parallel training."""
        variance = norm.get_buffer("running_var").clone()
        self._scheduler.ranks.follow_first([variance])
        return variance

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the parameters."""
        return iter(self._weights)

    def __len__(self) -> int:
        """Return the number of parameters."""
        return len(self._weights)

    @cached_property
    def _norms(self) -> dict[str, tuple[str, _BatchNorm, int]]:
        """The norm that follows each weight directly, with its path, and the weight's dimension of outputs."""
        graph, modules = self._scheduler.graph(), dict(self._scheduler.model.named_modules())
        found = {}
        for layer in graph.layers if graph is not None else ():
            path = layer.chain[0][0].rpartition(".")[0] if layer.normalized and layer.chain else ""
            norm = modules.get(path)
            if isinstance(norm, _BatchNorm) and norm.affine and norm.running_var is not None:
                found[layer.weight] = (path, norm, layer.out_dim)
        return found
