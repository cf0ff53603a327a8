"""Dynamic network surgery: weights leave below one threshold and come back above another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..declare.arguments import NonNegative, Sensitivities
from ..declare.cross_checks import Complaint
from ..declare.names import resolve_mapping
from ..declare.registry import register
from ..files.checked import Field
from ..processes.shards import mean_and_deviation
from .base import Pruner, View
from .element_thresholds import deviation


@register("pruners")
class SplicingPruner(Pruner):
    """Hides weights whose absolute value is below a, shows those at or above b, leaves the others (Guo et al. 2016).

    a = (mean + deviation x s) x low_thresh_mult and b likewise with hi_thresh_mult, of the absolute values at the first
    activation. The sensitivity s rises by `sensitivity_multiplier` of itself per epoch (or minibatch, where the window
    counts those). Give the policy `mask_on_forward_only: true`, or hidden weights cannot come back, and
    `keep_mask: true`.
    """

    def __init__(
        self,
        sensitivities: Sensitivities,
        low_thresh_mult: NonNegative,
        hi_thresh_mult: NonNegative,
        sensitivity_multiplier: NonNegative = 0.0,
    ) -> None:
        """Take the sensitivity by parameter (`*` for all others), the factors of both thresholds, and the rise."""
        self.sensitivities, self.low, self.high = sensitivities, low_thresh_mult, hi_thresh_mult
        self.multiplier = sensitivity_multiplier
        self._statistics: dict[str, tuple[float, float]] = {}

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, Any]) -> Iterable[Complaint]:
        """Complain of thresholds that are the wrong way round."""
        low, high = args["low_thresh_mult"], args["hi_thresh_mult"]
        if high < low:
            yield "hi_thresh_mult", f"{high:g} must not be below low_thresh_mult {low:g}"

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `sensitivities`."""
        self._resolved = resolve_mapping(self.sensitivities, model, star=True)

    def masks(self, view: View) -> dict[str, Tensor]:
        """Return the masks by parameter; the first call fixes mean and deviation."""
        since = view.window.position(view.step) - view.window.start
        return {name: self._mask(name, s * (since * self.multiplier + 1), view) for name, s in self._resolved.items()}

    def _mask(self, name: str, sensitivity: float, view: View) -> Tensor:
        size = view.weights[name].abs()
        if name not in self._statistics:
            self._statistics[name] = (mean_and_deviation(size)[0], deviation(size, name))
        mean, spread = self._statistics[name]
        # Guo et al. 2016, equation 3: below a hidden, from b on shown, in between as before. The distance of a and b
        # keeps weights from flickering at one threshold.
        middle = mean + spread * sensitivity
        before = view.masks[name] != 0 if name in view.masks else torch.ones_like(size, dtype=torch.bool)
        return view.still(name, (size >= middle * self.high) | (before & (size >= middle * self.low)))

    def targets(self) -> Iterable[str]:
        """Return the parameters with a sensitivity."""
        return self._resolved

    def state_dict(self) -> dict[str, Any]:
        """Return the mean and deviation by parameter."""
        return {"statistics": {name: list(pair) for name, pair in self._statistics.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back mean and deviation."""
        found = Field(state)["statistics"].mapping()
        pairs = {name: [number.number() for number in pair.items()] for name, pair in found.items()}
        self._statistics = {name: (mean, spread) for name, (mean, spread) in pairs.items()}
