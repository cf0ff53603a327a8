"""The state of all random number generators that training may use."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from potstill.compression.files.checked import Field, reading


def seed_everything(seed: int, deterministic: bool) -> None:
    """Seed Python, numpy and torch; with `deterministic` allow only deterministic kernels."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS refuses
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


class Randomness:
    """All global generators, as a piece of a run's state."""

    def state(self) -> dict[str, Any]:
        """Return the generators' states as tensors and plain data."""
        kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
        return {
            "python": random.getstate(),
            "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def restore(self, state: Field) -> None:
        """Take back what `state` gave; CUDA states only where there are as many devices.

        Raises:
            CheckpointError: it is damaged.
        """
        with reading(state.path):
            self._restore(state.value)

    def _restore(self, state: Mapping[str, Any]) -> None:
        version, internal, gauss_next = state["python"]
        random.setstate((version, tuple(internal), gauss_next))
        kind, keys, position, has_gauss, gauss = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
        torch.set_rng_state(state["torch"].cpu())
        if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
