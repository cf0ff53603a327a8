"""What a policy is: something with hooks that the scheduler calls while the policy's window covers the step."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from potstill.thinning import Recipe

from ..files.checked import CheckpointError, Field
from ..parts.claims import Claim, Goal
from ..steps import Step, Window, when
from .host import Host

PLAIN = (bool, int, float, str, type(None))


class LossComponent(NamedTuple):
    """A named part that a policy added to the loss."""

    name: str
    value: Tensor


class PolicyLoss(NamedTuple):
    """The whole loss and the parts that policies added to it."""

    overall_loss: Tensor
    loss_components: list[LossComponent]


class NotYet(dict[str, float]):
    """The metrics before the first validation: who follows them waits."""


@dataclass(frozen=True)
class Moment:
    """What a hook is told: the step, and the optimizer where the training loop gave one."""

    step: Step
    optimizer: Optimizer | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


class ScheduledTrainingPolicy:
    """Base class of policies; every hook does nothing unless a subclass overrides it.

    Attributes:
        scheduler: the scheduler that the policy was added to.
        window: when it acts.
        name: its name in that scheduler, also the owner of its masks.
        compresses: whether it makes the network another one (learning rates and teachers do not).
        weighs_loss: whether it weighs the training loop's own loss: it then goes before those that add terms to it.
        component: what its part of the loss is called; nothing where it has none.
    """

    compresses: ClassVar[bool] = True
    weighs_loss: ClassVar[bool] = False
    component: str = ""

    scheduler: Host
    window: Window
    name: str

    @property
    def acts(self) -> str:
        """The class of what acts: a checkpoint's state is for this one alone."""
        return type(self).__name__

    def arguments(self) -> dict[str, Any]:
        """Return the plain arguments of what acts: all ranks of a training must have the same."""
        return {}

    def check_class(self, name: str) -> None:
        """Check that a checkpoint's policy of this name did the same.

        Raises:
            CheckpointError: it was of another class.
        """
        if name != self.acts:
            raise CheckpointError(f"was a {name} and is a {self.acts} in this schedule: give it another name")

    def acts_in(self, hook: str, step: Step) -> bool:
        """Return whether it does its work in the hook `epoch` or `minibatch` at a step of its window."""
        return True

    def claims(self, last: Step | None) -> Mapping[str, Claim]:
        """Return what it wants of each parameter that it names; `last` is the last step at which it acted."""
        return {}

    @property
    def zeroes_weights(self) -> bool:
        """Return whether it makes weights zero without a mask."""
        return False

    @property
    def allows_inexact(self) -> bool:
        """Return whether it counts on `allow_inexact` when the network is thinned."""
        return False

    def goal(self) -> Goal | None:
        """Return what it wants of the network as a whole."""
        return None

    def why_passing(self) -> str:
        """Return why what it hid is not hidden for good; nothing where it is."""
        return ""

    def __getattr__(self, name: str) -> Any:
        """Say what is missing of a policy that no scheduler has."""
        if name in ("scheduler", "window", "name"):
            raise AttributeError(
                f"this {type(self).__name__} has no {name} yet: add it to a scheduler first, add_policy(policy, ...)"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        """Return what acts, and when."""
        if "scheduler" not in vars(self):
            return f"{type(self).__name__}, in no scheduler yet"
        return f"{type(self).__name__} {self.name}: {self.acts}, {when(self.window)}"

    def bind(self, scheduler: Host, window: Window, name: str) -> None:
        """Get ready, once, when the policy is added to a scheduler."""
        self.scheduler, self.window, self.name = scheduler, window, name

    def copied(self) -> None:
        """Watch the copy's model: called in a copy (`copy.deepcopy`) of a scheduler."""

    def on_epoch_begin(self, moment: Moment) -> None:
        """Act before an epoch's first minibatch."""

    def on_minibatch_begin(self, moment: Moment) -> None:
        """Act before the forward pass."""

    @property
    def sees_loss(self) -> bool:
        """Return whether it looks at the loss: `see_loss` is called of no others."""
        return type(self).see_loss is not ScheduledTrainingPolicy.see_loss

    def see_loss(self, moment: Moment, loss: Tensor) -> None:
        """With the loss, at each minibatch, also outside of the window."""

    def before_backward_pass(self, moment: Moment, loss: Tensor) -> PolicyLoss | None:
        """Act on the loss; return the loss to go on with, or None to leave it."""
        return None

    def before_parameter_optimization(self, moment: Moment) -> None:
        """Act after the backward pass, before the optimizer's step."""

    def on_minibatch_end(self, moment: Moment) -> None:
        """Act after the optimizer's step; masks have been applied."""

    def on_epoch_end(self, moment: Moment) -> None:
        """Act after training and validation of an epoch, before its checkpoint."""

    def after_window(self, moment: Moment) -> None:
        """End the work: called where the window is over, and again where training goes on from a state or goes back."""

    def finish(self) -> None:
        """Make final whatever is provisional: training is over, though the window may not have ended."""

    def metrics(self) -> dict[str, float]:
        """Return numbers worth a column in the metrics of an epoch."""
        return {}

    def own_parameters(self) -> Iterable[Tensor]:
        """Return what the policy trains itself, beside the model's parameters."""
        return ()

    def before_thinning(self) -> None:
        """Take away what would disturb the comparison of outputs: channels are going to be removed."""

    def after_thinning(self, recipe: Recipe | None) -> None:
        """Go on with other shapes: channels were removed as the recipe says. None: it failed and changed nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a resume: tensors and plain data."""
        return {}

    def shared_state(self) -> dict[str, Any]:
        """Return the part of the state that is the same on all ranks of a training."""
        return self.state_dict()

    def local_state(self) -> dict[str, Any]:
        """Return the part that is each rank's own until it is used: tensors and plain data."""
        return {}

    def join_local_states(self, states: Sequence[Field]) -> None:
        """Take what several ranks had in `local_state`, all of it (none: this rank begins without)."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""


def plain_arguments(of: object) -> dict[str, Any]:
    """Return what an object was made with and keeps by the argument's name: numbers, texts and containers of such."""
    kept = {name: vars(of)[name] for name in inspect.signature(type(of)).parameters if name in vars(of)}
    return {name: value for name, value in kept.items() if all(isinstance(leaf, PLAIN) for leaf in tree_leaves(value))}
