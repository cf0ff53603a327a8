"""How a scheduler looks at a prompt and in a notebook."""

from __future__ import annotations

from torch import nn

from potstill.thinning import Recipe
from potstill.thinning.files.html import html_lines, html_table

from .history import History, Span
from .masks import Masks
from .masks_repr import headline, listed
from .policies import ScheduledTrainingPolicy
from .processes.shards import first_sharded
from .sparsity_tables import sparsity
from .steps import Step, when


class ShownScheduler:
    """A scheduler, which tells who acts when, and how far it is."""

    model: nn.Module
    masks: Masks
    policies: list[ScheduledTrainingPolicy]
    history: History

    @property
    def recipe(self) -> Recipe | None:
        """All that thinning removed so far."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Return the network's size, and a line for each policy."""
        rows = [f"{name}: {acts}, {times}; acted: {acted}" for name, acts, times, acted in self._rows()]
        return listed("\n".join(self._lines()), rows)

    def _repr_html_(self) -> str:
        """Return the network's size, and a row for each policy."""
        rows = self._rows()
        return html_lines(*self._lines()) + (html_table(("policy", "class", "when", "acted"), rows) if rows else "")

    def _rows(self) -> list[tuple[str, str, str, str]]:
        spans = self.history.spans
        return [(p.name, p.acts, when(p.window), _acted(spans.get(p.name))) for p in self.policies]

    def _lines(self) -> list[str]:
        parameters = list(self.model.parameters())
        told = (
            f"{type(self).__name__} of {type(self.model).__name__}: {sum(p.numel() for p in parameters):,} parameters"
        )
        if first_sharded(parameters) is None:  # to count over shards, all processes would have to ask
            told += f", {100 * sparsity(self.model):.2f} % of them zeros"
        recipe = self.recipe
        thinned = [] if recipe is None else ["thinned: {:,} -> {:,} parameters".format(*recipe.parameters)]
        return [told, headline(self.masks), *thinned, *([] if self.policies else ["no policies yet"])]


def _acted(span: Span | None) -> str:
    if span is None:
        return "not yet"
    first, last = map(_at, span)
    return first if first == last else f"{first} to {last}"


def _at(step: Step) -> str:
    return f"epoch {step.epoch}" + (f", minibatch {step.minibatch}" if step.minibatch else "")
