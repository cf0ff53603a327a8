"""Statistics of BatchNorm for the network that remains, gathered during the last minibatches of the gates' window."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ...files.checked import Field
from ...processes.ranks import Ranks

Statistics = dict[str, tuple[Tensor, Tensor]]


class Recalibration:
    """Means and variances of the folded network, averaged over minibatches.

    Under random gates, running statistics become those of a mixture of networks that are never evaluated, and
    validation falls. So each of the last minibatches of the window goes through the network once more, as it would be
    folded now, with all but the norms in eval mode.

    Attributes:
        count: minibatches gathered so far.
    """

    def __init__(self, model: nn.Module) -> None:
        """Take the network; statistics of norms that keep none, or that are frozen, stay as they are."""
        self._model = model
        self._sums: Statistics = {}
        self.count = 0
        self.last = LastInput()

    @property
    def needed(self) -> bool:
        """Return whether the network has norms with running statistics that training changes."""
        return bool(_norms(self._model))

    @torch.no_grad()
    def gather(self, ranks: Ranks) -> None:
        """Run the last minibatch through the network as it is in eval mode, and add its statistics.

        They are averaged over ranks, in one message for each type of numbers.
        """
        given, self.last.given = self.last.given, None
        if given is None:
            return
        args, kwargs = given
        norms = _norms(self._model)
        with _measuring(self._model, norms.values()):
            self._model(*args, **kwargs)
            found = {name: _statistics(norm) for name, norm in norms.items()}
        # One message a type of numbers: a message for each norm would cost its latency as often.
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for tensor in (tensor for pair in found.values() for tensor in pair):
            kinds.setdefault(tensor.dtype, []).append(tensor)
        for tensors in kinds.values():
            ranks.average(tensors)
        for name, (mean, variance) in found.items():
            # Sums, divided at the end: each minibatch counts the same, where a running mean would forget the first
            # ones.
            before = self._sums.get(name, (torch.zeros_like(mean), torch.zeros_like(variance)))
            self._sums[name] = before[0] + mean, before[1] + variance
        self.count += 1

    @torch.no_grad()
    def apply(self) -> None:
        """Give the norms what was gathered, if anything was."""
        for name, (mean, variance) in self._sums.items() if self.count else ():
            norm = self._model.get_submodule(name)
            norm.get_buffer("running_mean").copy_(mean / self.count)
            norm.get_buffer("running_var").copy_(variance / self.count)

    def state_dict(self) -> dict[str, Any]:
        """Return sums and their number."""
        return {"count": self.count, "sums": {name: list(pair) for name, pair in self._sums.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        fields, norms = Field(dict(state)), _norms(self._model)
        self.count = fields["count"].integer()
        self._sums = {}
        for name, pair in fields["sums"].only(norms).mapping().items():
            like = norms[name].get_buffer("running_mean")
            mean, variance = (item.tensor(like.shape, like.dtype).to(like.device) for item in pair.items()[:2])
            self._sums[name] = mean, variance


class LastInput:
    """A hook before the forward pass that remembers what the network was called with in training."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.given: tuple[Any, Any] | None = None

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Remember the arguments."""
        if module.training:
            self.given = args, kwargs

    def __reduce__(self) -> tuple[Any, ...]:
        """Make a copy's hook one that remembers nothing of this one."""
        return LastInput, ()


def _norms(model: nn.Module) -> dict[str, _NormBase]:
    """Return the norms whose running statistics training changes, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _NormBase) and module.running_mean is not None and module.training is model.training
    }


@contextmanager
def _measuring(model: nn.Module, norms: Iterable[_NormBase]) -> Any:
    """Keep the network in eval mode but for the norms, whose running statistics become those of one batch."""
    norms = list(norms)
    modes = {module: module.training for module in model.modules()}
    kept = [(norm, norm.momentum, [buffer.clone() for buffer in norm.buffers()]) for norm in norms]
    model.eval()
    for norm in norms:
        # With momentum 1 the running statistics become those of this batch alone, whatever they were.
        norm.training, norm.momentum = True, 1.0
    try:
        yield
    finally:
        for norm, momentum, buffers in kept:
            norm.momentum = momentum
            for buffer, value in zip(norm.buffers(), buffers, strict=True):
                buffer.copy_(value)
        for module, mode in modes.items():
            module.training = mode


def _statistics(norm: _NormBase) -> tuple[Tensor, Tensor]:
    return norm.get_buffer("running_mean").clone(), norm.get_buffer("running_var").clone()
