"""Removes dead channels from the model in the middle of training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ..declare.arguments import Range
from ..declare.registry import register
from .base import Moment, ScheduledTrainingPolicy


@register("extensions", "Thinner", "StructureRemover", "FilterRemover", "ChannelRemover")
class Thinner(ScheduledTrainingPolicy):
    """Thins model, masks and optimizer at the first minibatch of each of its times.

    What can be removed exactly is removed, whatever the class is called: `FilterRemover`, `ChannelRemover` and
    `StructureRemover`, with their arguments, are Distiller's names for it. List it after the pruners of its epoch.
    """

    def __init__(
        self,
        thinning_func_str: Literal["remove_filters", "remove_channels", "contract_model"] = "contract_model",
        arch: str | None = None,
        dataset: str | None = None,
        allow_inexact: bool = False,
        round_to: Annotated[int, Range(1)] = 1,
        add_bias: bool = False,
    ) -> None:
        """Take Distiller's three arguments, which change nothing, and what `thin` takes.

        `allow_inexact`: remove channels that a LayerNorm averages over, too. `round_to`: numbers of channels stay
        multiples of this. `add_bias`: layers without a bias get one where it takes the constants of channels that go.
        """
        self.options: dict[str, Any] = {"allow_inexact": allow_inexact, "round_to": round_to, "add_bias": add_bias}

    def on_minibatch_begin(self, moment: Moment) -> None:
        """Thin, once per time of the window.

        Raises:
            ThinningError: the thinned model would compute another function.
        """
        if self.window.unit == "minibatch" or moment.step.minibatch == 0:
            self.scheduler.thin(moment.optimizer, **self.options)
