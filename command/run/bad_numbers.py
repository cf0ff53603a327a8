"""Numbers that are NaN or infinite: they never reach the weights, and what they came from is named.

`--on-nan stop` ends the run, `--on-nan skip` leaves the optimizer's step out and goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from potstill.thinning.files.checked import is_finite

from ..errors import TrainingError
from .finite import bad_tensor
from .session import Session

logger = logging.getLogger("potstill")


class Watch:
    """Watches one minibatch. `good` says whether all of its numbers were finite so far."""

    def __init__(self, run: Session, images: Tensor) -> None:
        """Begin before the forward pass: it may spoil running statistics, which a skipped step must not keep."""
        self.run, self.images, self.good = run, images, True
        skips = run.options.training.on_nan == "skip"
        self._buffers = [(b, b.clone()) for b in run.model.buffers()] if skips else []

    def loss_is_good(self, loss: Tensor, parts: Sequence[tuple[str, Tensor]]) -> bool:
        """Return whether the loss is finite.

        Raises:
            TrainingError: it is not, and the run is to stop; or the weights themselves are not.
        """
        if self.run.ranks.size > 1:  # all must go on to the backward pass; NaN reaches the gradients of all
            return True
        if not is_finite(loss):
            self._bad(f"the loss is {loss.item()}", first_bad(self.run, self.images, parts))
        return self.good

    def gradients_are_good(self) -> bool:
        """Return whether the step can be made: loss and gradients are finite.

        Raises:
            TrainingError: a gradient is not, and the run is to stop.
        """
        named = [(n, p.grad) for n, p in self.run.model.named_parameters() if p.grad is not None]
        if self.good and named:
            largest = torch.stack([m.float().cpu() for m in torch._foreach_norm([g for _, g in named], torch.inf)])
            if not is_finite(largest):
                name = named[int(largest.isfinite().logical_not().nonzero()[0])][0]
                self._bad("the loss is finite, but a gradient is not", f"the gradient of {name}")
        return self.good

    def _bad(self, what: str, first: str) -> None:
        run = self.run
        what = f"{what} at epoch {run.epoch}, minibatch {run.minibatch}; the first to go bad is {first}"
        lost = bad_tensor(run.model.named_parameters()) is not None
        if lost or run.options.training.on_nan != "skip":
            help_ = "a lower --lr may help" + ("" if lost else "; --on-nan skip goes on without such steps")
            raise TrainingError(f"{what}; stopped, {run.folder.checkpoint} is the last good checkpoint ({help_})")
        logger.warning("%s; the optimizer's step is left out", what)
        for buffer, before in self._buffers:
            buffer.copy_(before)
        run.meter.skipped += 1
        self.good = False


def first_bad(run: Session, images: Tensor, parts: Iterable[tuple[str, Tensor]] = ()) -> str:
    """Return the first of: parameters, images, activations in the order of the forward pass, terms of the loss.

    The forward pass is made again for it; random numbers go on as if it were not.
    """
    name = bad_tensor(run.model.named_parameters())
    if name is not None:
        return f"the parameter {name}"
    if not is_finite(images):
        return "the images of this minibatch"
    found: list[str] = []
    autocast = torch.autocast(run.device.type, torch.bfloat16, enabled=run.options.training.amp)
    with torch.random.fork_rng(), torch.no_grad(), autocast, _hooked(run.model, found):
        run.model(images)
    terms = [f"the loss term {name}" for name, value in parts if not is_finite(value)]
    return (*found, *terms, "the loss itself")[0]


@contextmanager
def _hooked(model: nn.Module, found: list[str]) -> Iterator[None]:
    """Let forward passes note the modules whose outputs are not finite, while it lasts."""

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            outputs = output if isinstance(output, (tuple, list)) else [output]
            if not all(is_finite(item) for item in outputs if isinstance(item, Tensor)):
                found.append(f"the output of {name or 'the network'} ({type(module).__name__})")

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
