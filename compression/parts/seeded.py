"""Randomness that is a function of names and time, so that a resumed run draws what an uninterrupted one would."""

from __future__ import annotations

from hashlib import sha256

import torch


def generator(*parts: object) -> torch.Generator:
    """A generator on the CPU, seeded by the parts' texts: seed, owner, parameter, epoch, minibatch."""
    digest = sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
