"""The scheduler: calls the policies' hooks at their times, and keeps zero what is masked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import pandas as pd
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.distributed import ProcessGroup
from torch.optim import Optimizer

from potstill.thinning import ChannelGraph, Recipe, trace, unwrapped

from .account import entries_of, tell_account
from .account_table import account_table
from .attach import Attachment
from .history import History
from .masks import Masks
from .policies import Moment, ScheduledTrainingPolicy
from .policies.joined import Joined
from .policies.policy_list import join, window_of, with_terms
from .policies.timetable import Timetable, Unit
from .processes.ranks import Ranks
from .rank_agreement import begin_together, compare_ranks
from .scheduler_copies import CopiedScheduler
from .scheduler_repr import ShownScheduler
from .scheduler_state import restore, state_of
from .steps import Step, Window
from .thin_scheduled import thin_scheduled

logger = logging.getLogger(__name__)


class CompressionScheduler(ShownScheduler, CopiedScheduler):
    """Runs policies inside any training loop.

    The loop calls six hooks, or `attach(optimizer)` calls the per-minibatch ones from the optimizer's own steps::

        scheduler.on_epoch_begin(epoch, optimizer)
        for i, (x, y) in enumerate(batches):
            scheduler.on_minibatch_begin(epoch, i, len(batches), optimizer)
            loss = scheduler.before_backward_pass(epoch, i, len(batches), criterion(model(x), y), optimizer)
            optimizer.zero_grad(); loss.backward()
            scheduler.before_parameter_optimization(epoch, i, len(batches), optimizer)
            optimizer.step()
            scheduler.on_minibatch_end(epoch, i, len(batches), optimizer)
        scheduler.on_epoch_end(epoch, optimizer, metrics={"min": validation_loss, "max": top1})

    Attributes:
        model: the network itself, taken out of what may be wrapped around it; it stays a plain one.
        ranks: the processes that train it together.
        rewrap: called after channels were removed in a training of several processes, to make the wrapper anew.
        masks: the masks of all parameters by name, also as `zeros_mask_dict`.
        recipes: what thinning removed so far.
        attachment: what calls the hooks from an optimizer's steps, where `attach` was used.
        history: when each policy acted.
        removed: policy -> parameter -> how many of the structures that it hid thinning has removed.
        begun: the step (epoch, minibatch, minibatches per epoch) that training is within.
        goes_on: a state is loaded next: a run keeps the times that it began with, whatever this machine's are.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any = None,
        validation_batch: Any = None,
        process_group: ProcessGroup | None = None,
        goes_on: bool = False,
    ) -> None:
        """Start without policies.

        Args:
            model: the network to compress, or `DistributedDataParallel`, `DataParallel` or `torch.compile` of it.
            example_inputs: what `model` is called with, to find which channels belong together and to thin. Without
                it, pruned filters leave their biases and norms alone, and thinning is refused.
            validation_batch: real inputs on which thinning checks equality too.
            process_group: the ranks that train this network alike (default: all of the default group, if there is one).
            goes_on: the state of a run is loaded next; latencies that were asked for are those of the machine on which
                it began, and out of reach on this one they are no error.
        """
        self.goes_on = goes_on
        self.model, self._given = unwrapped(model), model  # a compiled one lives as long as its hooks
        self.ranks = Ranks(process_group)
        self.rewrap: Callable[[], None] | None = None
        self.example_inputs, self.validation_batch = example_inputs, validation_batch
        self.masks = Masks(self.model)
        self.policies, self.joined = list[ScheduledTrainingPolicy](), Joined()
        self.recipes: list[Recipe] = []
        self.attachment: Attachment | None = None
        self.begun: tuple[int, ...] | None = None
        self.history = History()
        self.removed: dict[str, dict[str, int]] = {}
        self._graph: ChannelGraph | None = None
        self._told = False
        self._met = -1  # how many of the policies all ranks are known to have
        self._now: Moment | None = None
        self._acting: list[ScheduledTrainingPolicy] = []
        self._times = Timetable(self.policies)

    @property
    def zeros_mask_dict(self) -> Masks:
        """The masks by parameter name."""
        return self.masks

    def add_policy(
        self,
        policy: ScheduledTrainingPolicy,
        window: Window | None = None,
        *,
        epochs: Sequence[int] | None = None,
        starting_epoch: int | None = None,
        ending_epoch: int | None = None,
        frequency: int = 1,
        name: str | None = None,
    ) -> None:
        """Add a policy and say when it acts: by a window, by a list of epochs, or by a range (end exclusive).

        Raises:
            ValueError: the times are given in more than one way or not at all, the name is taken, the policy was added
                before (make a new one: it has one window), or the policy names a parameter that does not exist.
        """
        window = window_of(window, epochs, starting_epoch, ending_epoch, frequency)
        join(self, policy, window, name)
        self._times.begin()
        self._now = None

    def attach(
        self,
        optimizer: Optimizer,
        minibatches_per_epoch: int,
        steps: int | None = None,
        calls_epochs: bool = False,
        scaler: GradScaler | None = None,
    ) -> Attachment:
        """Call all hooks from the optimizer's steps; when a run goes on, load all states before (see `Attachment`)."""
        return Attachment(self, optimizer, minibatches_per_epoch, steps, calls_epochs, scaler)

    def on_epoch_begin(self, epoch: int, optimizer: Optimizer | None = None, minibatches_per_epoch: int = 1) -> None:
        """Let pruners compute masks, before an epoch's first minibatch."""
        moment = Moment(Step(epoch, 0, minibatches_per_epoch), optimizer)
        self.masks.must_be_of(self.model)
        self._met = begin_together(self, self._met, f"on_epoch_begin, epoch {epoch}")
        self._close(moment, "epoch")
        active = self._times.acting(moment.step, by_epoch=True)
        self.history.epoch_begins(moment.step, active)
        for policy in active:
            policy.on_epoch_begin(moment)
        compare_ranks(self, f"on_epoch_begin, epoch {epoch}", self._times.acted)

    def on_minibatch_begin(
        self, epoch: int, minibatch_id: int, minibatches_per_epoch: int, optimizer: Optimizer | None = None
    ) -> None:
        """Make masks by minibatch and thin, before the forward pass."""
        moment = self._moment(epoch, minibatch_id, minibatches_per_epoch, optimizer)
        self._met = begin_together(self, self._met, "on_minibatch_begin")
        self._close(moment, "minibatch")
        self.history.minibatch_begins(moment.step, self._acting, self.policies)
        for policy in self._acting:
            policy.on_minibatch_begin(moment)
        self.begun = moment.step.at

    def before_backward_pass(
        self,
        epoch: int,
        minibatch_id: int,
        minibatches_per_epoch: int,
        loss: Tensor,
        optimizer: Optimizer | None = None,
        return_loss_components: bool = False,
    ) -> Any:
        """Let policies add their terms to the loss.

        Returns:
            The loss to differentiate; with `return_loss_components` a `PolicyLoss` that also names the terms.
        """
        moment = self._moment(epoch, minibatch_id, minibatches_per_epoch, optimizer)
        result = with_terms(self._times.observers(), self._acting, moment, loss)
        return result if return_loss_components else result.overall_loss

    def before_parameter_optimization(
        self, epoch: int, minibatch_id: int, minibatches_per_epoch: int, optimizer: Optimizer | None = None
    ) -> None:
        """Stop gradients of pruned weights, and bring dense copies back for the optimizer, after the backward pass."""
        moment = self._moment(epoch, minibatch_id, minibatches_per_epoch, optimizer)
        self.masks.mask_gradients()
        self.masks.restore_dense()
        for policy in self._acting:
            policy.before_parameter_optimization(moment)

    def on_minibatch_end(
        self, epoch: int, minibatch_id: int, minibatches_per_epoch: int, optimizer: Optimizer | None = None
    ) -> None:
        """Apply masks after the optimizer's step, whether a policy is active or not."""
        moment = self._moment(epoch, minibatch_id, minibatches_per_epoch, optimizer)
        self.masks.apply()
        for policy in self._acting:
            policy.on_minibatch_end(moment)
        self.begun = None

    def on_epoch_end(
        self,
        epoch: int,
        optimizer: Optimizer | None = None,
        metrics: Mapping[str, float] | None = None,
        minibatches_per_epoch: int = 1,
    ) -> None:
        """Set the learning rates of the next epoch, after training and validation."""
        step = Step(epoch, minibatches_per_epoch - 1, minibatches_per_epoch)
        moment = Moment(step, optimizer, {} if metrics is None else metrics)
        for policy in self._times.acting(step, by_epoch=True):
            policy.on_epoch_end(moment)

    def graph(self) -> ChannelGraph | None:
        """Return which slices of which parameters are the same channel; None (and a warning) without example inputs."""
        if self.example_inputs is None:
            if not self._told:
                logger.warning("no example_inputs: pruned filters leave their biases and norms alone")
            self._told = True
        elif self._graph is None:
            self._graph = trace(self.model, self.example_inputs)
        return self._graph

    def forget_graph(self) -> None:
        """Trace the network anew when the channel graph is next asked for."""
        self._graph = None

    def thin(
        self,
        optimizer: Optimizer | None = None,
        *,
        allow_inexact: bool = False,
        round_to: int = 1,
        add_bias: bool = False,
    ) -> Recipe:
        """Remove dead channels from model, masks and optimizer, and check that the function is the same.
        All ranks call it: rank 0's buffers (running statistics) count, and `rewrap` is called.

        Raises:
            ValueError: the scheduler has no `example_inputs`.
            ThinningError: the thinned model computes another function; nothing was changed.
        """
        allow_inexact |= any(policy.allows_inexact for policy in self.policies)
        return thin_scheduled(self, optimizer, allow_inexact=allow_inexact, round_to=round_to, add_bias=add_bias)

    def account(self) -> pd.DataFrame:
        """Return what each policy asked of each parameter, what it hid, and what thinning does with it.

        A row a policy and parameter. Counts are of the row's `unit` (filters, channels, weights), those that thinning
        removed before included: `of` how many there are, `asked` (nothing where that follows from training), `hidden`,
        and of these `removable` by thinning exactly, `inexact`: only with `allow_inexact`, and those that it leaves as
        zeros, `stays`, with the reason `why`. `first` and `last` say when the policy acted. A row without parameter is
        of the whole network: a target, or a policy that names no parameter.
        """
        return account_table(entries_of(self))

    @property
    def recipe(self) -> Recipe | None:
        """All that thinning removed so far, as one recipe; None if it was never called."""
        return reduce(Recipe.then, self.recipes) if self.recipes else None

    def finish(self) -> None:
        """Fold gates that are open, make final what is provisional, and log the account.

        Policies that never acted, and all that stays as zeros, are warned about.
        """
        for policy in self.policies:
            policy.finish()
        self.history.tell_idle(self.policies)
        tell_account(self)
        compare_ranks(self, "finish()")

    def own_parameters(self) -> list[Tensor]:
        """Return what policies train themselves, beside the model's parameters (gates)."""
        return [parameter for policy in self.policies for parameter in policy.own_parameters()]

    def metrics(self) -> dict[str, float]:
        """Return what policies want to see in the metrics of an epoch, by name."""
        return {name: value for policy in self.policies for name, value in policy.metrics().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return masks, states of policies and recipes, fit for `weights_only=True`; call it on all ranks."""
        compare_ranks(self, "state_dict()")
        return state_of(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave, on all ranks. Raises `CheckpointError`, a ValueError: it does not fit."""
        restore(self, state)
        self._times.begin()

    def _close(self, moment: Moment, unit: Unit) -> None:
        """Tell policies that their window is over."""
        for policy in self._times.over(moment.step, unit):
            policy.after_window(moment)

    def _moment(self, epoch: int, minibatch: int, per_epoch: int, optimizer: Optimizer | None) -> Moment:
        """Return the moment of a minibatch, and with it who acts: found once for the four hooks of a minibatch."""
        now = self._now
        if now is None or now.optimizer is not optimizer or now.step.at != (epoch, minibatch, per_epoch):
            self._now = now = Moment(Step(epoch, minibatch, per_epoch), optimizer)
            self._acting = self._times.acting(now.step)
        return now
