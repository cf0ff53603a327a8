"""The metrics of each epoch for TensorBoard (extra `tensorboard`)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from potstill.thinning.files.text import is_text, printable

from ..errors import UsageError

PLACES = {
    "train_loss": "Performance/Training/Loss",
    "train_top1": "Performance/Training/Top1",
    "val_loss": "Performance/Validation/Loss",
    "val_top1": "Performance/Validation/Top1",
    "lr": "Performance/Training/LR",
    "zeros": "sparsity/zeros (%)",
    "gone": "sparsity/gone (%)",
}


def require_tensorboard() -> None:
    """Say early that events cannot be written.

    Raises:
        UsageError: the extra is not installed.
    """
    if find_spec("tensorboard") is None:
        raise UsageError('--tensorboard needs the extra: pip install "potstill[tensorboard]"')


class EventWriter:
    """Writes the same numbers as `metrics.csv`, and the sparsity of each parameter."""

    def __init__(self, folder: Path) -> None:
        """Write into the run folder.

        Raises:
            UsageError: the extra is not installed, or it cannot write there.
        """
        require_tensorboard()
        if not is_text(folder.absolute()):
            raise UsageError(f"--tensorboard cannot write into a folder whose name is not UTF-8: {folder.absolute()}")
        from torch.utils.tensorboard import SummaryWriter

        # The name says time and process; what nobody can guess in it keeps a link from waiting there.
        self._writer = SummaryWriter(str(folder), filename_suffix=f".{secrets.token_hex(8)}")

    def write(self, row: Mapping[str, Any], model: nn.Module) -> None:
        """Write one epoch."""
        epoch = row["epoch"]
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(PLACES.get(name, f"Performance/Training/{printable(name)}"), value, epoch)
        for name, parameter in ((printable(name), parameter) for name, parameter in model.named_parameters()):
            zeros = 1 - int(parameter.count_nonzero()) / max(parameter.numel(), 1)
            self._writer.add_scalar(f"sparsity/weights/{name}", zeros, epoch)
            self._writer.add_histogram(name.replace(".", "/"), parameter.detach().cpu(), epoch)
        self._writer.flush()
