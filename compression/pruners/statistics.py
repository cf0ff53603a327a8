"""Running sums that pruners gather between two rankings, and that survive a resume."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..declare.cross_checks import Complaint
from ..files.checked import Field
from ..parts.backward_end import after_backward_pass
from ..processes.ranks import Ranks


class Statistics:
    """Means by name over what was added since the sums were last used: on this rank, or `pooled` on all."""

    def __init__(self) -> None:
        """Start empty."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._used: set[str] = set()
        self._pooled: dict[str, Tensor] | None = None

    @torch.no_grad()
    def add(self, name: str, values: Tensor, count: int = 1) -> None:
        """Add a sum of `count` things; the first after `restart` begins anew. What is not finite adds nothing."""
        if count == 0:  # an empty batch
            return
        if name in self._used:
            self._used.remove(name)
            del self._sums[name], self._counts[name]
        # Sums of many minibatches, and ranks compare them: in double precision.
        values = values.detach().double().nan_to_num(0.0, 0.0, 0.0)
        self._sums[name] = self._sums[name].to(values.device) + values if name in self._sums else values
        self._counts[name] = self._counts.get(name, 0) + count

    @contextmanager
    def pooled(self, ranks: Ranks, like: Mapping[str, Tensor]) -> Iterator[None]:
        """Let means be over what all ranks have added; `like` has a tensor of its mean's shape for each name.

        A message of 8 bytes for each number and name.
        """
        if ranks.size > 1 and like:
            counts = torch.tensor([self._counts.get(name, 0) for name in like], dtype=torch.float64)
            device = next(iter(like.values())).device
            parts = [(self._sums[name] if name in self._sums else torch.zeros_like(like[name])) for name in like]
            # Copies: the reduction adds in place, and this rank's own sums go on.
            parts = [part.to(device, torch.float64, copy=True) for part in (*parts, counts)]
            ranks.add(parts)
            self._pooled = {
                name: total / count for name, total, count in zip(like, parts, parts[-1], strict=False) if count > 0
            }
        try:
            yield
        finally:
            self._pooled = None

    def mean(self, name: str) -> Tensor | None:
        """Return the mean of what was added, or None where nothing was."""
        if self._pooled is not None:
            return self._pooled.get(name)
        return self._sums[name] / self._counts[name] if name in self._sums else None

    def fresh(self, name: str) -> int:
        """Return how many things were added since the sums were last used, on this rank."""
        return 0 if name in self._used else self._counts.get(name, 0)

    def restart(self) -> None:
        """Let the next values begin new sums; until then the old ones can be read."""
        self._used = set(self._sums)

    def clear(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]

    def join(self, states: Sequence[Field]) -> None:
        """Take the sums and counts of several, added up; of none: begin anew."""
        self.clear()
        for fields in states:
            other = Statistics()
            other.load_state_dict(fields.value)
            for name, values in other._sums.items():
                self._sums[name] = self._sums[name] + values if name in self._sums else values
                self._counts[name] = self._counts.get(name, 0) + other._counts[name]
            self._used |= other._used

    def state_dict(self) -> dict[str, Any]:
        """Return sums and counts."""
        return {"sums": dict(self._sums), "counts": dict(self._counts), "used": sorted(self._used)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        fields = Field(state)
        self._sums = {name: value.tensor(None, torch.float64) for name, value in fields["sums"].mapping().items()}
        self._counts = {name: fields["counts"][name].integer(1) for name in self._sums}
        self._used = {name.text(self._sums) for name in fields["used"].items()}


def after_backward(name: str, parameter: nn.Parameter, hook: Callable[[Tensor], None]) -> RemovableHandle:
    """Call the hook with the parameter whenever its gradient is complete: with data parallel classes, averaged.

    Raises:
        ValueError: it is frozen.
    """
    problem = _frozen(name, parameter)
    if problem:
        raise ValueError(problem)
    return parameter.register_post_accumulate_grad_hook(_AfterBackward(torch.no_grad()(hook)))


class _AfterBackward:
    """Calls a hook with a parameter at the end of the backward pass; a copy calls nothing, and is made anew."""

    def __init__(self, hook: Callable[[Tensor], None] | None = None) -> None:
        self.hook = hook

    def __call__(self, weight: Tensor) -> None:
        hook = self.hook
        if hook is not None:
            after_backward_pass(lambda: hook(weight))

    def __reduce__(self) -> tuple[Any, ...]:
        return _AfterBackward, ()


def without_gradients(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    """Yield those of `weights` that are frozen."""
    model: nn.Module | None = getattr(shapes, "model", None)
    if model is None:
        return
    for name in args["weights"]:
        problem = _frozen(name, model.get_parameter(name))
        if problem:
            yield f"weights.{name}", problem


def _frozen(name: str, parameter: nn.Parameter) -> str | None:
    return None if parameter.requires_grad else f"{name} is frozen (requires_grad is False): it gets no gradient"
