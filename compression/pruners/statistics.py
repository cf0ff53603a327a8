"""Running sums that pruners gather between two rankings, and that survive a resume."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..declare.cross_checks import Complaint
from ..files.checked import Field


class Statistics:
    """Means by name over what was added since the sums were last used."""

    def __init__(self) -> None:
        """Start empty."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._used: set[str] = set()

    @torch.no_grad()
    def add(self, name: str, values: Tensor, count: int = 1) -> None:
        """Add a sum of `count` things; the first after `restart` begins anew. What is not finite adds nothing."""
        if name in self._used:
            self._used.remove(name)
            del self._sums[name], self._counts[name]
        values = values.detach().double().nan_to_num(0.0, 0.0, 0.0)
        self._sums[name] = self._sums[name].to(values.device) + values if name in self._sums else values
        self._counts[name] = self._counts.get(name, 0) + count

    def mean(self, name: str) -> Tensor | None:
        """The mean of what was added, or None where nothing was."""
        return self._sums[name] / self._counts[name] if name in self._sums else None

    def restart(self) -> None:
        """Let the next values begin new sums; until then the old ones can be read."""
        self._used = set(self._sums)

    def clear(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]

    def state_dict(self) -> dict[str, Any]:
        """Sums and counts."""
        return {"sums": dict(self._sums), "counts": dict(self._counts), "used": sorted(self._used)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        fields = Field(state)
        self._sums = {name: value.tensor(None, torch.float64) for name, value in fields["sums"].mapping().items()}
        self._counts = {name: fields["counts"][name].integer(1) for name in self._sums}
        self._used = {name.text(self._sums) for name in fields["used"].items()}


def after_backward(name: str, parameter: nn.Parameter, hook: Callable[[Tensor], None]) -> RemovableHandle:
    """Call the hook with the parameter whenever its gradient is complete.

    Raises:
        ValueError: it is frozen.
    """
    problem = _frozen(name, parameter)
    if problem:
        raise ValueError(problem)
    return parameter.register_post_accumulate_grad_hook(torch.no_grad()(hook))


def without_gradients(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    """Those of `weights` that are frozen."""
    model: nn.Module | None = getattr(shapes, "model", None)
    if model is None:
        return
    for name in args["weights"]:
        problem = _frozen(name, model.get_parameter(name))
        if problem:
            yield f"weights.{name}", problem


def _frozen(name: str, parameter: nn.Parameter) -> str | None:
    return None if parameter.requires_grad else f"{name} is frozen (requires_grad is False): it gets no gradient"
