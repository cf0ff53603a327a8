"""What each process of a run has of its own in a checkpoint: its sums since the epoch began, its random numbers."""

from __future__ import annotations

from typing import Any

import torch

from potstill.compression.files.checked import Field
from potstill.compression.processes.ranks import Ranks

from .evaluation import Meter
from .randomness import Randomness


def pooled(meter: Meter, ranks: Ranks) -> Meter:
    """Return the sums of all processes."""
    total = Meter(skipped=meter.skipped)
    for other in ranks.all(meter.state()):
        total.loss += other["loss"]
        total.top1, total.top5 = total.top1 + other["top1"], total.top5 + other["top5"]
        total.images += other["images"]
        for name, value in other["parts"].items():
            total.parts[name] = total.parts.get(name, 0.0) + value
    return total


def local_states(meter: Meter, ranks: Ranks) -> dict[str, Any]:
    """Return the state of each process, for a checkpoint; nothing where there is one."""
    if ranks.size == 1:
        return {}
    return {"ranks": ranks.all({"meter": meter.state(), "random": Randomness().state()})}


def restore_local(meter: Meter, state: Field, ranks: Ranks, seed: int) -> None:
    """Take back this process's own state; of another number of processes the first has all sums.

    Raises:
        CheckpointError: the state is damaged.
    """
    stored = state["ranks"].items() if isinstance(state.value, dict) and "ranks" in state.value else [state]
    if len(stored) == ranks.size:
        meter.restore(stored[ranks.rank]["meter"])
        if stored[ranks.rank]["random"].value is not None:
            Randomness().restore(stored[ranks.rank]["random"])
    elif ranks.rank > 0:
        meter.__init__()  # type: ignore[misc]
        seed_rank(seed, ranks)


def seed_rank(seed: int, ranks: Ranks) -> None:
    """Let each process draw other random numbers (dropout); the first draws those of a run alone."""
    if ranks.rank > 0:
        torch.manual_seed(seed + (ranks.rank << 40))
