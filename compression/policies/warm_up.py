"""Lets learning rates rise to what they are set to during the first steps."""

from __future__ import annotations

from ..declare.arguments import Fraction
from ..declare.registry import register
from .base import Moment, ScheduledTrainingPolicy


@register("extensions")
class WarmUp(ScheduledTrainingPolicy):
    """Multiplies the learning rates of each step in its window by a factor that rises linearly to 1.

    The gradual warm-up of Goyal et al. 2017 (Accurate, large minibatch SGD, section 2.2), on top of whatever sets the
    rates: between the steps the optimizer has the rate that the warm-up leads to. List it last.
    """

    compresses = False

    def __init__(self, start: Fraction = 0.0) -> None:
        """Take the factor from which it rises."""
        self.start = start
        self._lent: list[tuple[dict[str, object], object, object]] = []

    def factor(self, moment: Moment) -> float:
        """Return what rates are multiplied by: at the window's last step 1."""
        step, window = moment.step, self.window
        per_time = step.minibatches_per_epoch if window.unit == "epoch" else 1
        done = (step.index - window.start * per_time + 1) / ((window.end - window.start) * per_time)
        return self.start + (1 - self.start) * done

    def before_parameter_optimization(self, moment: Moment) -> None:
        """Lower the rates, for this step."""
        factor = self.factor(moment)
        for group in moment.optimizer.param_groups if moment.optimizer is not None else ():
            rate = group["lr"]
            group["lr"] = rate * factor
            self._lent.append((group, rate, group["lr"]))

    def on_minibatch_end(self, moment: Moment) -> None:
        """Put the rates back, but for those that were set anew since."""
        for group, rate, lowered in self._lent:
            if group["lr"] is lowered:
                group["lr"] = rate
        self._lent.clear()
