"""L0 regularization: hard-concrete gates on channels, a penalty or a target, and their folding into the parameters."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from potstill.thinning import Recipe

from ...declare.cross_checks import Shapes
from ...declare.names import normalise, resolve
from ...declare.registry import register
from ...files.checked import Field
from ...files.optimizer_state import load_optimizer_state
from ...parts.claims import Goal
from ...parts.compiled_models import refuse_compiled
from ...parts.structures import FILTERS, Group
from ...steps import Step
from ..base import Ending, Site
from .arguments import GateArguments
from .constraint import elapsed, steps_left
from .cross_checks import EXAMPLES, directions, gaps
from .final_gates import Verdict, judge, tell
from .gate_rate import rate_for
from .gates import Gates
from .hard_concrete import HardConcrete
from .install import install
from .latency import Speed, settle
from .recalibration import Recalibration
from .scale_activations import gated_modules
from .scale_parameters import tensor_of
from .survey import Survey, Target, check_target, survey, times_state, with_times

logger = logging.getLogger(__name__)


@register("regularizers")
@dataclass(eq=False)
class L0Regularizer(GateArguments):
    """Gates on the output channels of layers (Louizos et al. 2018), one on each channel, also where layers share it.

    In training mode the gates are drawn anew for each minibatch; in eval mode the network is the deterministic one.
    When the window ends, gates are multiplied into the parameters, and closed ones become masks. The
    arguments are those of `GateArguments`.
    """

    def __post_init__(self) -> None:
        """Start without gates; raises as `GateArguments` does."""
        super().__post_init__()
        self._distribution = HardConcrete(self.temperature, *self.stretch)
        self._handles: list[Any] = []
        self._owner = ""
        self._target = Target.of(self)
        self._found: Survey
        self._settled: float | None = None  # the measured share of the latency
        self._part = 1.0  # of the network that shares are of, what was left when its channels were traced last

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `weights`.

        Raises:
            ValueError: a weight has the directions of a weight norm.
        """
        self._names = resolve(self.weights, model)
        found = [problem for _, problem in directions({"weights": self._names}, Shapes(model))]
        if found:
            raise ValueError("; ".join(found))

    def prepare(self, site: Site) -> None:
        """Check that these gates are possible.

        Raises:
            ValueError: the model cannot be traced, a layer's channels cannot be removed, the target is out of reach, or
                the window has gaps.
        """
        if self._owner:
            raise ValueError(f"{site.name}: these gates belong to {self._owner}; each policy needs its own")
        self._site, self._owner = site, site.name
        if problem := gaps(site.window):
            raise ValueError(f"{site.name}: {problem}")
        self._survey()
        check_target(self._found, self._target, site)
        if self.sampling == "example":
            refuse_compiled(EXAMPLES, site.model)
            gated_modules(site.model, self._channels.layout)

    def start(self) -> None:
        """Put gates on the channels.

        Raises:
            ValueError: the target is out of reach in the network as it is now.
        """
        if self._site.graph() is not self._surveyed:  # channels were removed since
            self._survey()
            check_target(self._found, self._target, self._site)
        device = tensor_of(self._site.model, self._channels.layout.names[0]).device
        # By names, not by order: two gate policies of one run must not draw the same noise.
        own = zlib.crc32(" ".join(map(normalise, self._names)).encode())
        seed = (self._site.ranks.first(torch.initial_seed()) + own) % 2**63
        self._gates = Gates(len(self._channels), self._distribution, self.droprate_init, seed, device)
        self._gates.ranks = self._site.ranks
        self._norms = Recalibration(self._site.model)
        self._optimizer = torch.optim.Adam([self._gates.log_alpha], fused=True)
        self._install()

    def stop(self) -> None:
        """Take the gates' hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def loss(self, weights: Mapping[str, Tensor], step: Step) -> Tensor:
        """Return the strength x mean open probability, or multiplier x violation of the target.

        Raises:
            RuntimeError: parts of the model were called, but not the model: the gates did not act.
        """
        if not self._gates.used:
            why = "gates act when the model itself is called, not where its parts are"
            raise RuntimeError(f"{self._site.name}: no forward pass of the whole model since the last loss: {why}")
        self._gates.used = False
        probabilities = self._gates.open_probabilities()
        if self._constraint is None:
            return probabilities.mean() * (self.strength or 0.0)
        return self._constraint.term(probabilities, elapsed(self._site.window, step))

    def after_step(self, step: Step) -> None:
        """Step the gates by Adam (unless a gradient is not finite, as loss scaling has it), then the multiplier."""
        gradient = self._gates.log_alpha.grad
        if gradient is None:
            return
        # DistributedDataParallel averages the gradients of the model's parameters, and gates are none of them.
        self._site.ranks.average([gradient])
        self._optimizer.param_groups[0]["lr"] = self.gate_lr or rate_for(self._site.window, step)
        self._optimizer.found_inf = (~gradient.isfinite()).any().float()  # type: ignore[attr-defined]  # fused kernels skip
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._constraint is not None:
            self._constraint.update()
        if steps_left(self._site.window, step) <= self.recalibrate:
            with self._gates.fixed(self._gates.distribution.deterministic(self._verdict().on(self._gates))):
                self._norms.gather(self._site.ranks)

    def finish(self) -> Ending:
        """Take the hooks off; the gates become factors, the closed ones masks of all that makes their channels."""
        with torch.no_grad():
            verdict = self._verdict()
            tell(verdict, self._owner, self._constraint is not None)
            self._gates.log_alpha.copy_(verdict.on(self._gates))
            values = self._gates.deterministic()
        self.stop()
        self._norms.apply()
        weights = dict(self._site.model.named_parameters())
        return Ending(self._channels.factors(values), self._channels.masks(values > 0, weights))

    def _verdict(self) -> Verdict:
        if self._found.speed is not None and self._settled is None:
            self._settle(self._found.speed)
        reach = self._found.reach
        return judge(self._gates, self._channels, self._constraint, None if reach is None else reach.removable)

    def _settle(self, speed: Speed) -> None:
        """Move the goal so that the network which is left, measured as a whole, takes the time that was asked for."""
        constraint, was = self._constraint, self._gates.suspended
        if constraint is None:
            return
        asked, self._settled = constraint.goal, 1.0

        def share_of(goal: float) -> float:
            constraint.goal = goal
            verdict = self._verdict()
            opened = (self._gates.deterministic() > 0) & ~verdict.closed | verdict.opened
            return self._part * float(self._site.ranks.first(speed.share(self._site.model, self._channels, opened)))

        self._gates.suspended = True
        try:
            constraint.goal, self._settled = settle(share_of, asked)
        finally:
            self._gates.suspended = was
        logger.info("%s: the network that is left takes %.3f of the time, measured", self._owner, self._settled)

    def before_thinning(self) -> None:
        """Take the gates off for the time of thinning: it compares the network without them."""
        self._gates.suspended = True

    def after_thinning(self, recipe: Recipe | None) -> None:
        """Put the gates back on the channels that are left."""
        if recipe is not None and not recipe.removes_nothing:
            kept = {change.name: change.keep[0] for change in recipe.tensors if 0 in change.keep}
            before, sizes, constraint = self._channels, self._sizes, self._constraint
            self._survey()
            self._sizes.total = sizes.total
            if constraint is not None and self._constraint is not None:
                self._part = self._constraint.follow(constraint)
            self._gates.keep(self._channels.matching(before, kept), self._optimizer)
            self._norms = Recalibration(self._site.model)
            self._install()
        self._gates.suspended = False

    def goal(self) -> Goal | None:
        """Return the target: parameters or multiply-adds to remove of those that the network had."""
        goal = None if self._target is None else self._target.goal(self._found)
        if goal is None or self._settled is None:
            return goal
        return replace(goal, left=round(goal.of * self._settled))

    def structures(self) -> Mapping[str, Group]:
        """Return output channels."""
        return dict.fromkeys(self._names, FILTERS)

    def own_parameters(self) -> Iterable[Tensor]:
        """Return the positions of the gates."""
        return (self._gates.log_alpha,)

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """Return penalty, expected and present sparsity, open gates, mean gate, multiplier of a target."""
        probabilities, values = self._gates.open_probabilities(), self._gates.deterministic()
        numbers = {
            "penalty": probabilities.mean().item(),
            "expected_sparsity": 1 - self._sizes.share(probabilities).item(),
            "gated_sparsity": 1 - self._sizes.share((values > 0).to(values)).item(),
            "open_gates": int((values > 0).sum()),
            "mean_gate": values.mean().item(),
        }
        if self._constraint is not None:
            numbers["multiplier"] = self._constraint.multiplier.item()
            if self._constraint.measured:
                numbers["expected_latency"] = self._constraint.budget.share(probabilities).item()
        return numbers

    def state_dict(self) -> dict[str, Any]:
        """Return gates, their optimizer and the multiplier, while the window lasts; and what was measured."""
        timed = self._found.speed is not None and self._settled is None  # else nothing is traced for it
        known = timed and (bool(self._handles) or self._site.graph() is self._surveyed)
        return {**self._gates_state(), **times_state(self._found, self._settled, known)}

    def _gates_state(self) -> dict[str, Any]:
        if not self._handles:
            return {}
        return {
            "gates": self._gates.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "constraint": {} if self._constraint is None else self._constraint.state_dict(),
            "norms": self._norms.state_dict(),
            "total": self._sizes.total,  # of before a thinning within the window
            "part": self._part,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: the state is of another number of gates.
        """
        if "gates" not in state:
            self._found, self._settled = with_times(self._found, self._settled, self._target, state)
            return
        self._gates.load_state_dict(state["gates"])
        load_optimizer_state(self._optimizer, Field(state)["optimizer"])
        if self._constraint is not None:
            self._constraint.load_state_dict(state["constraint"])
        self._found, self._settled = with_times(self._found, self._settled, self._target, state)
        if "norms" in state:
            self._norms.load_state_dict(state["norms"])
        if "part" in state:
            self._part = Field(state)["part"].number()
        if "total" in state:
            self._sizes.total = max(1.0, Field(state)["total"].number())

    def copied(self) -> None:
        """Put gates in the place of the fixed ones that the copy's model came with."""
        if self._handles:
            self._install()

    def _survey(self) -> None:
        """Find out which channels have gates now, how the network's size depends on them, and what the target is."""
        self._found = survey(self._site, self._names, self._target)
        self._surveyed = self._site.graph()
        self._channels, self._sizes, self._constraint = self._found.channels, self._found.sizes, self._found.constraint

    def _install(self) -> None:
        self.stop()
        model = self._site.model
        self._handles = install(model, self._channels.layout, self._gates, self.sampling)
        if self.recalibrate and self._norms.needed:
            self._handles.append(model.register_forward_pre_hook(self._norms.last, with_kwargs=True))
