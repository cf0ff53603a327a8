"""Random generators from words, so that no draw depends on what was drawn before it, nor on torch's global state."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Use(IntEnum):
    """What a generator is for: two uses of the same seed must not share a stream."""

    SPLIT = 1
    LIMIT = 2
    ORDER = 3
    AUGMENT = 4
    TEST = 5


def generator(use: Use, seed: int, epoch: int = 0) -> torch.Generator:
    """Return a CPU generator that is a function of its arguments alone (hashed by numpy's SeedSequence)."""
    word = np.random.SeedSequence([int(use), seed, epoch]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word >> np.uint64(1)))  # torch wants it below 2**63
