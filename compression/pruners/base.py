"""What a pruner is: a function from what it is shown of the model at a step to masks.

A new one is a class with `@register("pruners")` in a file of this folder; see `docs/extending.md`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from potstill.thinning import ChannelGraph

from ..files.checked import Field
from ..parameter_mask import Mode
from ..parts.structures import Group
from ..processes.ranks import Ranks
from ..steps import Step, Window
from .outcome import Outcome


@dataclass(frozen=True)
class View:
    """What a pruner is shown.

    Attributes:
        step: where training stands.
        window: when the policy acts; `window.progress(step)` runs from 0 to 1.
        weights: parameter name -> its dense values (those to rank; never to be changed).
        masks: the owner's own masks so far, by parameter name.
        model: the network, for what is not a parameter (gradients, modules).
        graph: gives the channel graph, or None where the model could not be traced.
        levels: sparsities by name, where the policy's `args` give them.
        owner: the name of the policy, part of the seed of what is random.
        mode: how the masks treat what they hide; where they are hard, what is hidden stays hidden.
        ranks: the processes that train together: what each has gathered by itself is to be averaged over them.
        inputs: what the model is called with, or None.
    """

    step: Step
    window: Window
    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    model: nn.Module
    graph: Callable[[], ChannelGraph | None]
    levels: Mapping[str, float] | None = None
    owner: str = ""
    mode: Mode = "hard"
    ranks: Ranks = field(default_factory=Ranks)
    inputs: Any = None

    @property
    def progress(self) -> float:
        """Return how far the window is, 0 to 1."""
        return self.window.progress(self.step)

    def alive(self, name: str) -> Tensor | None:
        """Return where a hard mask lets the parameter live (bool).

        None without one, or where hidden values may return.
        """
        mask = self.masks.get(name) if self.mode == "hard" else None
        return None if mask is None else mask != 0

    def still(self, name: str, keep: Tensor) -> Tensor:
        """Return the mask, less what a hard mask of before already hides."""
        alive = self.alive(name)
        return keep if alive is None else keep & alive


class Pruner(ABC):
    """Decides which weights stay.

    A pruner keeps no time and changes nothing: `masks` follows from its arguments, from what it is shown, and from
    the state that it hands out in `state_dict`.

    Attributes:
        takes_levels: whether it looks at `view.levels`: other pruners refuse policies that give some.
        local: the entries of its state that each rank of a training gathers by itself.
    """

    takes_levels = False
    local: ClassVar[tuple[str, ...]] = ()

    def bind(self, model: nn.Module) -> None:  # noqa: B027  (most pruners only resolve names here)
        """Resolve names against the model and attach what gathers statistics. Called once, before the first step."""

    def prepare(self, window: Window, graph: Callable[[], ChannelGraph | None]) -> None:  # noqa: B027
        """Check what can go wrong before training begins: called once, after `bind`."""

    @abstractmethod
    def masks(self, view: View) -> dict[str, Tensor]:
        """Return the masks at this step, by parameter.

        0 hides, 1 keeps. Parameters left out keep the mask that they had.
        """

    def see_loss(self, loss: Tensor, step: Step) -> None:  # noqa: B027  (most do not look at it)
        """With the loss of each minibatch, also before the window, until `release`."""

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """Return what the last ranking asked and did, by weight; nothing where no counted structures are hidden."""
        return {}

    def asked(self, view: View) -> Mapping[str, int]:
        """Return how many single weights are to be hidden, by parameter, where it is known and no structures."""
        return {}

    def structures(self) -> Mapping[str, Group]:
        """Return how it splits parameters, known after `bind`; those left out are hidden weight by weight."""
        return {}

    def expected(self, view: View) -> Mapping[str, Outcome]:
        """Return what `masks(view)` would ask and do, found without scores; nothing changes."""
        return {}

    def at_last_level(self, view: View) -> bool:
        """Return whether later steps of the window ask for no more than this one."""
        return True

    def values(self, view: View, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return new values for weights, to go with the masks just made; most pruners have none."""
        return {}

    def settle(self, view: View) -> dict[str, Tensor]:
        """Return further masks to go with soft masks that have just become permanent."""
        return {}

    def targets(self) -> Iterable[str]:
        """Return the parameters that the pruner acts on, known after `bind`.

        Policies that meet on one are warned about.
        """
        return ()

    def waits(self) -> bool:
        """Return whether it has yet to see a training pass that it goes by."""
        return False

    def release(self) -> None:  # noqa: B027  (most attach nothing)
        """Detach what `bind` attached: the window is over."""

    def copied(self, model: nn.Module) -> None:  # noqa: B027  (most watch nothing)
        """Watch `model`, that of a copy, for which what `bind` attached watches the original."""

    def after_thinning(self) -> None:  # noqa: B027  (most keep nothing that has a shape)
        """Forget what has the old shapes: channels were removed."""

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a resume beside masks and weights: tensors and plain data."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027  (most have no state)
        """Take back what `state_dict` gave."""

    def join(self, states: Sequence[Field]) -> None:  # noqa: B027  (most gather nothing)
        """Take the `local` entries of the states of several ranks, all of them; of none: begin without."""
