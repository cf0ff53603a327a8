"""The same operation of two modules of a class is found by its line: what one taught about it, the other need not."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from potstill.thinning.rehearsal.rehearse import Rehearsal
from potstill.thinning.trace import analyse


def heads_of(x):
    return x.view(-1, 4, 6)


class Block(nn.Module):
    """A number in the code, after more operations in some blocks than in others."""

    def __init__(self, shifts):
        super().__init__()
        self.shifts = shifts
        self.inner, self.out = nn.Linear(8, 24), nn.Linear(24, 8)

    def forward(self, x):
        x = F.relu(self.inner(x))
        for _ in range(self.shifts):
            x = -x.view(len(x), -1)
        a, b = heads_of(x), heads_of(x.sigmoid())
        return self.out((a + b).flatten(1))


X = torch.randn(2, 8)


def views_of(*shifts):
    operations = analyse(nn.Sequential(*map(Block, shifts)), X).log.operations
    return [step.kind for step in operations if "view" in str(step.func) and step.made[0][0][1:] == (4, 6)]


def test_a_line_is_the_same_in_all_blocks_and_each_call_on_it_is_another():
    first, second, third, fourth = views_of(0, 2)
    assert first == third and second == fourth and first != second


def test_blocks_with_more_operations_before_a_line_cost_no_more_runs(monkeypatch):
    runs = []
    failure = Rehearsal.failure
    monkeypatch.setattr(Rehearsal, "failure", lambda *args: runs.append(1) or failure(*args))
    views_of(0, 0, 0, 0)
    alike, runs[:] = len(runs), []
    views_of(0, 1, 2, 3)
    assert len(runs) == alike
