"""Element-wise pruners that compare absolute values with a threshold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from torch import Tensor, nn

from potstill.thinning import ChannelGraph

from ..declare.arguments import Names, NonNegative, ParameterNames, Positive, Range, Sensitivities
from ..declare.cross_checks import Complaint, Use
from ..declare.names import resolve, resolve_mapping
from ..declare.registry import register
from ..files.checked import Field
from ..processes.shards import mean_and_deviation
from ..steps import Step, Window
from .base import Pruner, View

Thresholds = Annotated[Mapping[str, NonNegative], ParameterNames(star=True)]


def above(name: str, threshold: float, view: View) -> Tensor:
    """Mask that keeps the elements of a parameter whose absolute value is above the threshold."""
    return view.still(name, view.weights[name].abs() > threshold)


@register("pruners")
class MagnitudeParameterPruner(Pruner):
    """Hides the elements of each listed parameter whose absolute value is at most its threshold."""

    def __init__(self, thresholds: Thresholds) -> None:
        """Take `thresholds`: parameter name or pattern -> threshold; `*` is for all others, if it is given."""
        self.thresholds = thresholds

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `thresholds`."""
        self._resolved = resolve_mapping(self.thresholds, model, star=True)

    def masks(self, view: View) -> dict[str, Tensor]:
        """Return the masks by parameter."""
        return {name: above(name, threshold, view) for name, threshold in self._resolved.items()}

    def targets(self) -> Iterable[str]:
        """Return the parameters with a threshold."""
        return self._resolved


@register("pruners")
class SensitivityPruner(Pruner):
    """Like `MagnitudeParameterPruner` with the threshold sensitivity x standard deviation of the parameter.

    The standard deviation is that of the first activation (Han et al. 2015): the threshold stays while weights shrink.
    """

    def __init__(self, sensitivities: Sensitivities) -> None:
        """Take `sensitivities`: parameter name or pattern -> sensitivity; `*` is for all others."""
        self.sensitivities = sensitivities
        self._deviations: dict[str, float] = {}

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `sensitivities`."""
        self._resolved = resolve_mapping(self.sensitivities, model, star=True)

    def masks(self, view: View) -> dict[str, Tensor]:
        """Return the masks by parameter; the first call fixes the deviations."""
        for name in self._resolved:
            if name not in self._deviations:
                self._deviations[name] = deviation(view.weights[name], name)
        return {name: above(name, s * self._deviations[name], view) for name, s in self._resolved.items()}

    def targets(self) -> Iterable[str]:
        """Return the parameters with a sensitivity."""
        return self._resolved

    def state_dict(self) -> dict[str, Any]:
        """Return the deviations."""
        return {"deviations": dict(self._deviations)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the deviations."""
        found = Field(state)["deviations"].mapping()
        self._deviations = {name: value.number() for name, value in found.items()}


@register("pruners")
class BaiduRNNPruner(Pruner):
    """Hides what is below a threshold that rises, slowly at first and faster from a ramp on (Narang et al. 2017)."""

    def __init__(
        self, q: Positive, ramp_epoch_offset: Annotated[int, Range(0)], ramp_slope_mult: Positive, weights: Names
    ) -> None:
        """Take `q` (the final threshold's measure), when the ramp starts, how much steeper it is, and the parameters.

        Narang et al. recommend the 90th percentile of the absolute weights of a trained network for `q`, a ramp from a
        quarter of training on, and a slope 1.5 to 2 times the first.
        """
        self.q, self.offset, self.multiple, self.weights = q, ramp_epoch_offset, ramp_slope_mult, weights

    @classmethod
    def misuses(cls, use: Use) -> Iterable[Complaint]:
        """Yield a ramp that would never begin: the first slope alone does not reach q, and far out turns negative."""
        problem = _late(use.given["ramp_epoch_offset"], use.window)
        if problem:
            yield "times", problem

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `weights`."""
        self._names = resolve(self.weights, model)

    def prepare(self, window: Window, graph: Callable[[], ChannelGraph | None]) -> None:
        """Check when the ramp begins.

        Raises:
            ValueError: after the window.
        """
        problem = _late(self.offset, window)
        if problem:
            raise ValueError(problem)

    def masks(self, view: View) -> dict[str, Tensor]:
        """Return the masks by parameter at this step's threshold."""
        threshold = self.threshold(view.window, view.step)
        return {name: above(name, threshold, view) for name in self._names}

    def targets(self) -> Iterable[str]:
        """Return the listed parameters."""
        return self._names

    def threshold(self, window: Window, step: Step) -> float:
        """Return the threshold at a step (Narang et al. 2017, algorithm 1), in the window's unit of time."""
        now, start, every = window.position(step), window.start, window.frequency
        ramp = start + self.offset
        # Narang et al. 2017, equation 1: theta = 2 q freq / (2 (ramp - start) + 3 (end - ramp)). With the second slope
        # 1.5 times the first, the threshold reaches q at the end.
        slope = 2 * self.q * every / (2 * (ramp - start) + 3 * (window.end - ramp))
        if now < ramp:
            return slope * (now - start + 1) / every
        return (slope * (ramp - start + 1) + slope * self.multiple * (now - ramp + 1)) / every


def _late(offset: int, window: Window) -> str | None:
    """Return what is wrong with a ramp that begins so long after a window's first time, or None."""
    if offset < window.end - window.start:
        return None
    most = window.end - window.start - 1
    return f"ends before the ramp begins: ramp_epoch_offset {offset} must be at most {most} in a window of {most + 1}"


def deviation(weight: Tensor, name: str) -> float:
    """Return the sample standard deviation of a parameter; 0 where it has one element.

    Raises:
        ValueError: it is not finite, so that no threshold could be made of it.
    """
    _, value = mean_and_deviation(weight)
    if not math.isfinite(value):
        raise ValueError(f"{name} has values that are not finite (NaN or infinite): they have no deviation")
    return value
