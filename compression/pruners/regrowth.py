"""Dynamic sparse training: at a constant sparsity, small weights leave and others come to life."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..declare.arguments import Fraction, Names
from ..declare.cross_checks import Complaint
from ..declare.names import resolve
from ..declare.registry import register
from ..files.checked import Field
from ..parts.seeded import generator, rand_here
from ..parts.selection import count, keep_highest
from ..processes.shards import count_of, is_sharded, part, with_part
from .base import Pruner, View
from .statistics import after_backward, without_gradients


class RegrowingPruner(Pruner):
    """Prunes each listed parameter to a sparsity by chance, then exchanges weights at that sparsity.

    At each later time of the window, a share of the living weights leaves, those of smallest absolute value, and as
    many come to life, with the value 0. The share falls along a cosine from `drop_fraction` to 0 (Evci et al. 2020).
    """

    def __init__(self, weights: Names, sparsity: Fraction, drop_fraction: Fraction = 0.3, seed: int = 0) -> None:
        """Take the parameters, the sparsity of each, the share exchanged at first, and the seed of the draws."""
        self.weights, self.sparsity, self.drop_fraction, self.seed = weights, sparsity, drop_fraction, seed

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `weights`."""
        self._names = resolve(self.weights, model)

    def targets(self) -> Iterable[str]:
        """Return the listed parameters."""
        return self._names

    def masks(self, view: View) -> dict[str, Tensor]:
        """Return the masks by parameter."""
        return {
            name: self._exchange(name, view) if name in view.masks else self._begin(name, view) for name in self._names
        }

    def growth(self, name: str, view: View) -> Tensor | None:
        """Return how much each element deserves to live; None where that is not known yet."""
        raise NotImplementedError

    def draws(self, name: str, view: View) -> Tensor:
        """Return a random number for each element."""
        weight = view.weights[name]
        source = generator(self.seed, view.owner, name, view.step.epoch, view.step.minibatch)
        if is_sharded(weight):
            return with_part(weight, rand_here(weight, source))
        return torch.rand(weight.shape, generator=source, device="cpu").to(weight.device)

    def _begin(self, name: str, view: View) -> Tensor:
        draws = self.draws(name, view)
        return keep_highest(draws, count(self.sparsity, draws.numel()))

    def _exchange(self, name: str, view: View) -> Tensor:
        alive, wish = view.masks[name] != 0, self.growth(name, view)
        # f_decay of Evci et al. 2020: alpha / 2 (1 + cos(pi t / T)).
        share = self.drop_fraction / 2 * (1 + math.cos(math.pi * view.progress))
        living = count_of(alive)
        # No more leave than there are places to come to life: the sparsity stays what it is.
        leave = min(count(share, living), alive.numel() - living)
        if wish is None or leave == 0:
            return alive
        # First who leaves (the smallest of those alive), then who comes: all that stay rank above every wish, so that
        # what comes is chosen among the dead and those that have just left.
        stay = keep_highest(view.weights[name].abs(), alive.numel() - living + leave, alive)
        return keep_highest(wish.masked_fill(stay, torch.inf), alive.numel() - living)


@register("pruners")
class SETPruner(RegrowingPruner):
    """Sparse evolutionary training (Mocanu et al. 2018): what comes to life is drawn by chance."""

    def growth(self, name: str, view: View) -> Tensor:
        """Return a random number for each element."""
        return self.draws(name, view)


@register("pruners")
class RigLPruner(RegrowingPruner):
    """The rigged lottery (Evci et al. 2020): what comes to life is where the loss's gradient is largest.

    The gradient is that of the minibatch before, of all elements; before there is one, nothing is exchanged.
    """

    def __init__(self, weights: Names, sparsity: Fraction, drop_fraction: Fraction = 0.3, seed: int = 0) -> None:
        """Take the parameters, the sparsity of each, the share exchanged at first, and the seed of the first draw."""
        super().__init__(weights, sparsity, drop_fraction, seed)
        self._gradients: dict[str, Tensor] = {}
        self._handles: list[Any] = []
        self._users = 0

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
        """Complain of weights without gradients."""
        return without_gradients(args, shapes)

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `weights` and watch their gradients."""
        super().bind(model)
        self._users += 1
        if self._users == 1:
            self._handles = [self._watch(name, model.get_parameter(name)) for name in self._names]

    def copied(self, model: nn.Module) -> None:
        """Watch the model of a copy."""
        if self._users:
            self._handles = [self._watch(name, model.get_parameter(name)) for name in self._names]

    def _watch(self, name: str, parameter: nn.Parameter) -> Any:
        def hook(weight: Tensor) -> None:
            if weight.grad is not None:
                gradient = part(weight.grad.detach()).to_dense()  # of an embedding it may be sparse
                gradient = gradient.nan_to_num(0.0, 0.0, 0.0)  # before the masks stop it
                self._gradients[name] = with_part(weight, gradient)

        return after_backward(name, parameter, hook)

    def growth(self, name: str, view: View) -> Tensor | None:
        """Return the absolute gradient of each element."""
        gradient = self._gradients.get(name)
        return None if gradient is None else gradient.abs()

    def release(self) -> None:
        """Watch no longer."""
        self._users -= 1
        if self._users == 0:
            for handle in self._handles:
                handle.remove()
            self._gradients.clear()

    def after_thinning(self) -> None:
        """Drop the gradients of the old shapes, which are worth nothing."""
        self._gradients.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the last gradients, and how many policies still watch."""
        return {"gradients": dict(self._gradients), "users": self._users}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self._gradients = {name: value.tensor() for name, value in Field(state)["gradients"].mapping().items()}
        if Field(state)["users"].integer() == 0 and self._users:
            self._users = 1
            self.release()
