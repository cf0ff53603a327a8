"""Whether what would be saved is finite."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from potstill.thinning.files.checked import is_finite

from ..errors import TrainingError
from .evaluation import Meter


def check_network(model: nn.Module) -> None:
    """Refuse to write a checkpoint of a network that is lost, over one that is not.

    Raises:
        TrainingError: a parameter is not finite, or a buffer is NaN.
    """
    name = bad_tensor(model.named_parameters())
    if name is None:
        name = next((n for n, b in model.named_buffers() if b.is_floating_point() and b.isnan().any()), None)
    if name is not None:
        raise TrainingError(f"{name} has values that are not finite: no checkpoint was written over the last good one")


def check_epoch(meter: Meter, epoch: int) -> None:
    """Stop a run that skips all that it does.

    Raises:
        TrainingError: no minibatch of the epoch had a finite loss.
    """
    if meter.skipped and not meter.images:
        raise TrainingError(f"every minibatch of epoch {epoch} was skipped, since no loss was finite: see run.log")


def bad_tensor(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the first name whose tensor has a value that is NaN or infinite."""
    return next((name for name, tensor in named if not is_finite(tensor.detach())), None)
