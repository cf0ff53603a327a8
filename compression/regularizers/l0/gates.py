"""A vector of hard-concrete gates: their parameters, their noise and their draws."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ...files.checked import Field
from ...processes.ranks import Ranks
from .hard_concrete import HardConcrete

SPREAD = 0.01
"""Standard deviation of the initial `log_alpha`, as in Louizos' code; it breaks ties."""
EDGE = 1e-6
"""Uniform noise stays this far from 0 and 1, where its logit is infinite."""


class Gates:
    """All gates of a regularizer as one vector; every draw, penalty and count is a few operations on all of them.

    The noise has a generator of its own, so that data order and dropout are the same with and without gates.

    Attributes:
        distribution: the hard-concrete distribution.
        log_alpha: (gates,), a leaf with gradient.
        suspended: whether the gates do not act for now.
        used: set when gates are drawn.
        ranks: the processes that draw together.
    """

    suspended = False
    used = False
    _fixed: Tensor | None = None

    def __init__(
        self, count: int, distribution: HardConcrete, droprate: float, seed: int, device: torch.device
    ) -> None:
        """Start `count` gates with the given droprate."""
        self.distribution, self.ranks = distribution, Ranks()
        # On the gates' device: noise drawn elsewhere would have to be copied at every step.
        self._noise = torch.Generator(device).manual_seed(seed)
        start = torch.empty(count, device=device)
        start.normal_(distribution.location(droprate), SPREAD, generator=self._noise)
        self.log_alpha = start.requires_grad_()

    def __len__(self) -> int:
        """Return the number of gates."""
        return len(self.log_alpha)

    def draw(self, training: bool) -> Tensor | None:
        """Return (gates,): a sample for a training step, else the deterministic gates; None while suspended."""
        self.used = True
        if self.suspended:
            return None
        if self._fixed is not None:
            return self._fixed
        return self._sample(self.log_alpha.shape, self._noise) if training else self.deterministic()

    @contextmanager
    def fixed(self, values: Tensor) -> Iterator[None]:
        """Let all draws be these values meanwhile, and not count as used."""
        # `used` tells whether the loop has called the model since its last loss; recalibration is no call of the loop.
        used, self._fixed = self.used, values
        try:
            yield
        finally:
            self.used, self._fixed = used, None

    def draw_rows(self, rows: int) -> Tensor:
        """Return (rows, gates): a sample for each example of a batch."""
        self.used = True
        return self._sample(torch.Size((rows, len(self))), self._noise if self.ranks.size == 1 else self._own_noise())

    def deterministic(self) -> Tensor:
        """Return (gates,): the gates of evaluation."""
        return self.distribution.deterministic(self.log_alpha)

    def open_probabilities(self) -> Tensor:
        """Return (gates,): the probability of each gate that it is not 0."""
        return self.distribution.open_probability(self.log_alpha)

    def keep(self, kept: Tensor, optimizer: Optimizer) -> None:
        """Forget all gates but those with the indices `kept`, in that order, here and in the optimizer's state."""
        # Moments of Adam have the gates' shape and shrink with them; its step count has not, and stays.
        kept, before = kept.to(self.log_alpha.device), self.log_alpha.shape
        state = optimizer.state[self.log_alpha]
        for key, value in state.items():
            if value.shape == before:
                state[key] = value[kept]
        # The tensor stays the same object, so that the optimizer's group need not be made anew.
        self.log_alpha.grad = None
        self.log_alpha.data = self.log_alpha.data[kept]

    def state_dict(self) -> dict[str, Any]:
        """Return locations and state of the noise."""
        return {"log_alpha": self.log_alpha.detach().clone(), "noise": self._noise.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: the state is of another number of gates.
        """
        fields = Field(state)
        found = fields["log_alpha"].tensor(None, self.log_alpha.dtype)
        if found.shape != self.log_alpha.shape:
            raise ValueError(f"the state has {found.numel()} gates, the model {len(self)}")
        with torch.no_grad():
            self.log_alpha.copy_(found)
        self._noise.set_state(fields["noise"].tensor(None, torch.uint8).cpu())

    def _own_noise(self) -> torch.Generator:
        """Return noise for this rank's examples; move the common noise on alike, however many ranks there are."""
        # Each rank has other examples and needs other noise, but the common generator must stand where it stands on
        # every other rank: one number is drawn from it, and a generator seeded with its state and the rank.
        state = zlib.crc32(self._noise.get_state().numpy().tobytes())
        torch.empty(1, device=self.log_alpha.device).uniform_(generator=self._noise)
        return torch.Generator(self.log_alpha.device).manual_seed(state + (self.ranks.rank << 32))

    def _sample(self, shape: torch.Size, noise: torch.Generator) -> Tensor:
        # log u - log(1 - u) of uniform u is logistic noise (eq. 10).
        uniform = torch.empty(shape, device=self.log_alpha.device).uniform_(EDGE, 1 - EDGE, generator=noise)
        return self.distribution.sample(self.log_alpha, uniform.logit_())
