"""What a regularizer is: a loss term, and optionally a threshold below which weights are zero, or gates to fold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from potstill.thinning import ChannelGraph, Recipe

from ..parts.claims import Goal
from ..parts.structures import Group
from ..processes.ranks import Ranks
from ..steps import Step, Window
from .in_place_gradients import Penalty


@dataclass(frozen=True)
class Site:
    """Where and when a regularizer works.

    Attributes:
        model: the network.
        graph: gives the channel graph, or None where the model could not be traced.
        window: when the policy acts.
        name: the policy's name.
        ranks: the processes that train together.
        example_inputs: what the model is called with, or None.
        goes_on: a state is loaded next, of a run that perhaps began on another machine.
    """

    model: nn.Module
    graph: Callable[[], ChannelGraph | None]
    window: Window
    name: str
    ranks: Ranks = field(default_factory=Ranks)
    example_inputs: Any = None
    goes_on: bool = False


@dataclass(frozen=True)
class Ending:
    """What stays when the window ends.

    Attributes:
        factors: parameter -> what it is multiplied by (broadcasts to its shape).
        masks: parameter -> its permanent mask from now on.
    """

    factors: Mapping[str, Tensor] = field(default_factory=dict)
    masks: Mapping[str, Tensor] = field(default_factory=dict)


def refuse_complex(names: Iterable[str], model: nn.Module) -> None:
    """Check that parameters are real.

    Raises:
        ValueError: one is complex.
    """
    for name in names:
        if model.get_parameter(name).is_complex():
            raise ValueError(f"{name} is complex, and penalties are of real numbers")


class Regularizer(ABC):
    """Adds to the loss what draws weights towards zero.

    Attributes:
        has_proximal_step: whether `proximal` can take the place of the loss term.
    """

    has_proximal_step = False

    def bind(self, model: nn.Module) -> None:  # noqa: B027  (nothing to resolve is fine)
        """Resolve names against the model. Called once, before the first step."""

    @abstractmethod
    def loss(self, weights: Mapping[str, Tensor], step: Step) -> Tensor:
        """Return the term to add to the loss: a scalar with gradient.

        Args:
            weights: all parameters of the model by name.
            step: where training stands.
        """

    def penalties(self, weights: Mapping[str, Tensor]) -> Sequence[Penalty]:
        """Return the terms that `loss` is the sum of, where they know their gradients.

        The policy then uses these instead.
        """
        return ()

    def prepare(self, site: Site) -> None:  # noqa: B027  (most need to know no more)
        """Check what can go wrong before training begins: called once, after `bind`."""

    def start(self) -> None:  # noqa: B027
        """Begin: the window does, or training goes on inside of it."""

    def stop(self) -> None:  # noqa: B027
        """Undo `start`: a state of before, or one that is refused, leaves nothing of it."""

    def after_step(self, step: Step) -> None:  # noqa: B027
        """Follow the optimizer, which made its step."""

    def finish(self) -> Ending:
        """End with the window: what was temporary goes. Return what stays."""
        return Ending()

    def own_parameters(self) -> Iterable[Tensor]:
        """Return what it trains itself, with an optimizer of its own, while the window lasts."""
        return ()

    def metrics(self) -> dict[str, float]:
        """Return numbers worth a column in the metrics of an epoch, while the window lasts."""
        return {}

    def before_thinning(self) -> None:  # noqa: B027
        """Get ready: channels are going to be removed."""

    def copied(self) -> None:  # noqa: B027  (most act on nothing but the loss)
        """Act on the model of a copy of the scheduler."""

    def after_thinning(self, recipe: Recipe | None) -> None:  # noqa: B027
        """Go on with other shapes: channels were removed as the recipe says. None: it failed and changed nothing."""

    def threshold(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return masks of what is small enough to be zero now, by parameter. Without a threshold there are none."""
        return {}

    def proximal(self, weights: Mapping[str, Tensor], rates: Mapping[str, float]) -> None:
        """Change weights in place after the optimizer's step, instead of adding to the loss.

        Args:
            weights: the values that the optimizer updated, by name.
            rates: the learning rate of each parameter's group.
        """
        raise NotImplementedError(f"{type(self).__name__} has no proximal step")

    def shrinks(self) -> Iterable[str]:
        """Return the parameters that the proximal step changes, known after `prepare`."""
        return ()

    def targets(self) -> Iterable[str]:
        """Return the parameters that the threshold acts on, known after `bind`; none without a threshold."""
        return ()

    def goal(self) -> Goal | None:
        """Return what it wants of the network as a whole."""
        return None

    def structures(self) -> Mapping[str, Group]:
        """Return how it splits parameters, known after `prepare`.

        The others that it names are taken weight by weight.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a resume beside masks and weights: tensors and plain data."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027  (most have no state)
        """Take back what `state_dict` gave."""
