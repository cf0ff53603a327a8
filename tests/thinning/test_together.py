"""Channels that one number of the model's code counts in several places go together, and the number changes."""

from __future__ import annotations

import torch
from torch import nn

from potstill.thinning import trace
from potstill.thinning.rehearsal.rehearse import Rehearsal

from .networks import shrunk


class Cascade(nn.Module):
    """Cuts in a loop by two numbers of one value: each cut has channels of its own, so that neither counts any."""

    def __init__(self):
        super().__init__()
        self.keys = self.values = 16
        self.cuts = nn.ModuleList(nn.Linear(16, 48) for _ in range(3))
        self.mix, self.out = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        for layer in self.cuts:
            q, k, v = layer(x).split([self.keys, self.keys, self.values], 1)
            x = self.mix(v * (q * k).sum(1, keepdim=True))
        return self.out(x)


def test_what_one_number_counts_in_every_round_of_a_loop_goes_together(monkeypatch):
    runs = []
    failure = Rehearsal.failure
    monkeypatch.setattr(Rehearsal, "failure", lambda *args: runs.append(1) or failure(*args))
    graph = trace(Cascade(), torch.randn(2, 16))
    assert len(runs) < 10  # 40 where each round is repaired by itself
    assert [use.channels.count_nonzero() for use in graph.uses if use.name == "mix.weight"] == [16, 16]


class Waves(nn.Module):
    """Each round cuts twice in halves by one number, in two lines; the last has as many steps as the data say."""

    def __init__(self, width=16):
        super().__init__()
        self.width = width
        self.first, self.last = nn.Conv1d(3, width, 1), nn.Conv1d(width, 2, 1)
        self.gates = nn.ModuleList(nn.Conv1d(width, 2 * width, 3, padding=1) for _ in range(2))
        self.skips = nn.ModuleList(nn.Conv1d(width, 2 * width, 1) for _ in range(2))
        self.steps = nn.Linear(3, 1)

    def forward(self, x):
        steps = int(self.steps(x.mean(2)).abs().sum() * 10) + 2
        x = self.first(x)
        total = torch.zeros_like(x)
        for gate, skip in zip(self.gates, self.skips, strict=True):
            both = gate(x)
            made = skip(both[:, : self.width].tanh() * both[:, self.width :].sigmoid())
            x, total = x + made[:, : self.width], total + made[:, self.width :]
        return self.last(total).mean(2, keepdim=True).expand(-1, -1, steps)


def test_channels_that_one_number_cuts_in_several_lines_go_together():
    torch.manual_seed(0)
    model, dead = Waves(), [1, 6]
    both = [*dead, *(16 + channel for channel in dead)]
    x, zeros = (
        torch.randn(2, 3, 12),
        {"first": dead, "gates.0": both, "gates.1": both, "skips.0": both, "skips.1": both},
    )
    shrunk(model, x, **zeros)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in Waves(14).parameters())
    assert model.width == 14
