"""The learning rate of each parameter, by the optimizer's groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


class LearningRates:
    """Looks up learning rates by the parameters' names."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        """Take the parameters by name."""
        self._names = {id(parameter): name for name, parameter in parameters.items()}

    def of(self, optimizer: Optimizer | None, who: str) -> _Rates:
        """The rates of an optimizer now; those of parameters that it does not update, or that are frozen, are 0.

        Raises:
            ValueError: the hook was not given the optimizer.
        """
        if optimizer is None:
            raise ValueError(f"{who}: a proximal step needs the learning rate: give on_minibatch_end the optimizer")
        groups = {
            self._names[id(parameter)]: group
            for group in optimizer.param_groups
            for parameter in group["params"]
            if id(parameter) in self._names and parameter.requires_grad
        }
        return _Rates(groups)


class _Rates(Mapping[str, float]):
    def __init__(self, groups: dict[str, dict[str, Any]]) -> None:
        self._groups = groups

    def __getitem__(self, name: str) -> float:
        return float(self._groups[name]["lr"]) if name in self._groups else 0.0

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)
