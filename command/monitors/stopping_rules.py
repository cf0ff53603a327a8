"""When to stop early: the criteria of Prechelt 1998, as functions of the errors of all epochs so far.

L. Prechelt, "Early stopping - but when?", in Neural Networks: Tricks of the Trade, LNCS 1524, pages 55-69, section 2.1.
E_tr(t) is the mean training error of epoch t, E_va(t) the validation error after it, E_opt(t) the lowest E_va so far.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

STRIP = 5
"""Epochs in a training strip, as in the paper."""
Errors = Sequence[float]


def generalization_loss(validation: Errors) -> float:
    """Return GL(t) = 100 (E_va(t) / E_opt(t) - 1): how many percent the last epoch's error lies above the lowest."""
    now, lowest = validation[-1], min(validation)
    if now <= lowest:
        return 0.0
    return 100 * (now / lowest - 1) if lowest > 0 else math.inf


def progress(training: Errors, strip: int = STRIP) -> float:
    """Return P_k(t) = 1000 (sum of E_tr over the last k epochs / (k x the lowest of them) - 1): the pace of training.

    In thousandths by which the mean training error of the strip exceeds its lowest; 0 where it does not change.
    """
    last = training[-strip:]
    mean, lowest = sum(last) / len(last), min(last)
    if mean <= lowest:
        return 0.0
    # A training error of 0 cannot fall: any rise above it is endless progress, and stops nothing.
    return 1000 * (mean / lowest - 1) if lowest > 0 else math.inf


def lowest_epoch(validation: Errors) -> int:
    """Return the place of E_opt: the first of the lowest validation errors."""
    return min(range(len(validation)), key=validation.__getitem__)


class StoppingRule(ABC):
    """Decides after each epoch whether to stop."""

    @abstractmethod
    def reason(self, training: Errors, validation: Errors) -> str | None:
        """Return why to stop now, or None.

        Args:
            training: E_tr of the epochs so far, at least one.
            validation: E_va of the same epochs.
        """


@dataclass(frozen=True)
class Best(StoppingRule):
    """Trains to the last epoch; the weights of E_opt are taken all the same."""

    def reason(self, training: Errors, validation: Errors) -> str | None:
        """Return None: there is never a reason."""
        return None


@dataclass(frozen=True)
class GeneralizationLoss(StoppingRule):
    """GL_alpha: stop after the first epoch with GL(t) > alpha (in percent)."""

    alpha: float

    def reason(self, training: Errors, validation: Errors) -> str | None:
        """Return the generalization loss, where it is above alpha."""
        loss = generalization_loss(validation)
        if loss <= self.alpha:
            return None
        return f"GL = {loss:.4g} % > {self.alpha:g} % (validation loss above its lowest)"


@dataclass(frozen=True)
class ProgressQuotient(StoppingRule):
    """PQ_alpha: stop after the first strip of k epochs with GL(t) / P_k(t) > alpha."""

    alpha: float
    strip: int = STRIP

    def reason(self, training: Errors, validation: Errors) -> str | None:
        """Return the quotient, where it is above alpha at the end of a strip."""
        # Only at the end of a strip, as in the paper: P_k within one would mix two.
        if len(training) % self.strip:
            return None
        loss, pace = generalization_loss(validation), progress(training, self.strip)
        if loss <= self.alpha * pace:  # also where nothing was gained and nothing lost
            return None
        return f"GL / P_{self.strip} = {loss:.4g} / {pace:.4g} > {self.alpha:g} (loss of generalization over progress)"


@dataclass(frozen=True)
class SuccessiveIncreases(StoppingRule):
    """UP_s: stop when the validation error has risen over s successive strips of k epochs, whatever the amount.

    UP_1 stops after the first strip with E_va(t) > E_va(t - k); UP_s if UP_(s-1) would have stopped at t - k and
    E_va(t) > E_va(t - k).
    """

    increases: int
    strip: int = STRIP

    def reason(self, training: Errors, validation: Errors) -> str | None:
        """Return the rising errors at the ends of the last strips."""
        needed = self.increases * self.strip + 1
        if len(validation) % self.strip or len(validation) < needed:
            return None
        ends = validation[-needed :: self.strip]
        if any(later <= earlier for earlier, later in pairwise(ends)):
            return None
        errors = ", ".join(f"{error:.4g}" for error in ends)
        strips = "1 strip" if self.increases == 1 else f"{self.increases} successive strips"
        return f"UP: the validation loss rose over {strips} of {self.strip} epochs: {errors}"


def parse_rule(text: str) -> StoppingRule:
    """Return a rule from `best`, `GL:alpha`, `PQ:alpha[,k]` or `UP:s[,k]` (k epochs in a strip, 5 by default).

    Raises:
        ValueError: it is none of these, or a number is out of range.
    """
    kind, _, rest = text.partition(":")
    if text == "best":
        return Best()
    first, comma, second = rest.partition(",")
    strip = _count(second, "the length k of a strip") if comma else STRIP
    if kind == "GL" and not comma:
        return GeneralizationLoss(_positive(first))
    if kind == "PQ":
        return ProgressQuotient(_positive(first), strip)
    if kind == "UP":
        return SuccessiveIncreases(_count(first, "the number s of increases"), strip)
    raise ValueError(f"no stopping rule {text!r}: best, GL:alpha, PQ:alpha,k or UP:s")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"alpha must be a number above 0, not {text!r}")
    return value


def _count(text: str, what: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"{what} must be a whole number of 1 or more, not {text!r}")
    return int(text)
