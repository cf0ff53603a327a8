"""Rehearsals: which runs of copies a search for fixed sizes needs, and how far each came."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from potstill.thinning import trace
from potstill.thinning.rehearsal import rehearse
from potstill.thinning.rehearsal.guesses import Guesses
from potstill.thinning.rehearsal.rehearse import Rehearsal
from potstill.thinning.tracing.deviation import Deviation


class Rows(nn.Module):
    """Queries, keys and values in one layer, viewed as rows of numbers in the code, or of the input's width."""

    def __init__(self, by_input):
        super().__init__()
        self.by_input = by_input
        self.inner, self.rows, self.out = nn.Linear(5, 24), nn.Linear(24, 72), nn.Linear(24, 3)

    def forward(self, x):
        x = self.inner(x)
        width = x.shape[-1] // 4 if self.by_input else 6
        q, k, v = self.rows(x).view(*x.shape[:2], 3, 4, width).unbind(2)
        return self.out((q * k.softmax(-1) + v).flatten(2)[..., :24])


@pytest.fixture
def runs(monkeypatch):
    """Return the list to which each run of a copy adds what it compared."""
    found = []
    for name in ("_by_shapes", "_by_channels"):
        run = getattr(Rehearsal, name)
        monkeypatch.setattr(Rehearsal, name, lambda *args, run=run, name=name: (found.append(name), run(*args))[1])
    return found


@pytest.fixture
def followed(monkeypatch):
    """Return the list to which each axis of a split is added that is tried."""
    found = []
    follow = Guesses._follow
    monkeypatch.setattr(
        Guesses, "_follow", lambda self, steps, axis: (found.append(axis), follow(self, steps, axis))[1]
    )
    return found


def test_what_fails_by_its_shape_costs_no_run_that_follows_channels(runs):
    trace(Rows(by_input=False), torch.randn(2, 3, 5))
    assert runs == ["_by_shapes", "_by_shapes", "_by_channels"]  # once it failed, then the rows stay


class Branches(Rows):
    """Looks at a value: it cannot run without numbers."""

    def forward(self, x):
        return super().forward(x + 1 if x.sum() > 0 else x)


@pytest.mark.parametrize("most", [0, 10**10])
def test_runs_that_cost_much_are_not_carried_out_for_shapes_alone(monkeypatch, runs, most):
    monkeypatch.setattr(sys.modules[trace.__module__], "COSTLY", most)
    graph = trace(Branches(by_input=True), torch.randn(2, 3, 5))
    assert ("_by_shapes" in runs) == (most > 0)
    assert runs
    assert torch.equal(graph.frozen < 0, trace(Rows(by_input=True), torch.randn(2, 3, 5)).frozen < 0)


def test_the_same_try_is_not_run_twice(monkeypatch, followed):
    tries = []
    deviation = Rehearsal.deviation

    def noted(self, log, removal):
        tries.append(rehearse._identity(log, removal.numbers))
        return deviation(self, log, removal)

    monkeypatch.setattr(Rehearsal, "deviation", noted)
    trace(Rows(by_input=False), torch.randn(2, 3, 5))
    assert followed  # the axis that is followed anyway
    assert len(tries) == len(set(tries)) == 2


def test_an_axis_is_not_followed_where_code_asks_for_another_size_of_the_others(followed):
    trace(Rows(by_input=True), torch.randn(2, 3, 5))
    assert set(followed) <= {4}


def test_shapes_are_compared_to_the_end_before_channels_count():
    by_channels, *by_shapes = Deviation(2, "channels", fits=True), Deviation(7, "a shape"), Deviation(9, "a shape")
    assert sorted([by_channels, *by_shapes], key=lambda deviation: deviation.reached) == [*by_shapes, by_channels]
