"""Which epochs were the best so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from potstill.compression.files.checked import Field


@dataclass(frozen=True)
class Score:
    """What one epoch reached on the validation images."""

    epoch: int
    top1: float
    top5: float
    sparsity: float
    nonzero: int

    def __str__(self) -> str:
        """Show the line that Distiller printed, for those who search for it."""
        return (
            f"==> Best [Top1: {self.top1:.3f}   Top5: {self.top5:.3f}   Sparsity: {100 * self.sparsity:.2f}   "
            f"NNZ-Params: {self.nonzero} on epoch: {self.epoch}]"
        )


@dataclass
class BestEpochs:
    """The scores of all epochs. `by` is `sparsity` (fewest non-zero parameters first, then top1) or `top1`."""

    by: str = "sparsity"
    scores: list[Score] = field(default_factory=list)
    _told: list[Score] = field(default_factory=list, repr=False, compare=False)

    def add(self, score: Score) -> bool:
        """Take an epoch's score; whether it is the best now."""
        self.scores.append(score)
        return self.top(1)[0] is score

    def top(self, count: int) -> list[Score]:
        """Return the best ones, best first; of equal ones the later."""

        def merit(score: Score) -> tuple[float, ...]:
            accuracy = (score.top1, score.top5, score.epoch)
            return accuracy if self.by == "top1" else (-score.nonzero, *accuracy)

        return sorted(self.scores, key=merit, reverse=True)[:count]

    def news(self, count: int) -> list[Score]:
        """Return the best ones where they are others than when this was last asked, else nothing."""
        best = self.top(count)
        known, self._told = self._told, best
        return [] if best == known else best

    def is_final(self, score: Score, compressed: Callable[[int], bool]) -> bool:
        """Return whether an epoch is the most accurate of those after which compression was complete."""
        rivals = [other for other in self.scores if compressed(other.epoch)]
        return max(rivals, key=lambda other: (other.top1, other.top5, other.epoch), default=None) is score

    def state(self) -> list[dict[str, Any]]:
        """Return the scores, for a checkpoint."""
        return [asdict(score) for score in self.scores]

    def restore(self, state: Field) -> None:
        """Take back what `state` gave.

        Raises:
            CheckpointError: it is damaged.
        """
        self.scores = [_score(score) for score in state.items()]


def _score(state: Field) -> Score:
    state.only([f.name for f in fields(Score)])
    top1, top5, sparsity = (state[name].number() for name in ("top1", "top5", "sparsity"))
    return Score(state["epoch"].integer(), top1, top5, sparsity, state["nonzero"].integer())
