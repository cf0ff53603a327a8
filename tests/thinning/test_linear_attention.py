"""Linear attention with the delta rule: triangular systems, results written by chunks, heads that a formula counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from .networks import Between, class_of, left_after, rand

X = rand(2, 4, 6)
DEAD = {"first__weight": [(0, [1, 2])], "first__bias": [(0, [1, 2])]}


def solved(matrix, x, left=True):
    return torch.linalg.solve_triangular(matrix, x, upper=False, left=left, unitriangular=True)


def of_channels(x):
    """A matrix for each channel, of its values."""
    return x.mT[..., None] * torch.ones(4, 4)


SOLVED = {
    "columns": lambda m, x: solved(m.matrix, x),
    "rows": lambda m, x: solved(m.matrix, x.mT, left=False).mT,
    "of a channel each": lambda m, x: solved(of_channels(x), x.mT[..., None])[..., 0].mT,
    "a matrix of a channel each": lambda m, x: solved(of_channels(x), torch.ones(2, 8, 4, 1))[..., 0].mT - 1,
}


@pytest.mark.parametrize("name", SOLVED)
def test_channels_of_triangular_systems(name):
    model = Between(SOLVED[name], 8, {"matrix": nn.Parameter(rand(4, 4))})
    left, _ = left_after(model, (X,), **DEAD)
    if name == "a matrix of a channel each":  # what comes of zeros there is not followed
        assert left["first.weight"] == (8, 6)
    else:
        assert (left["first.weight"], left["second.weight"], left["matrix"]) == ((6, 6), (3, 6), (4, 4))


OVER = {
    "columns": lambda m, x: solved(m.matrix, x.mT).mT,
    "rows": lambda m, x: solved(m.matrix, x, left=False),
    "of the matrix": lambda m, x: solved(x.mT @ x, m.matrix.expand(2, 8, 8)),
}


@pytest.mark.parametrize("name", OVER)
def test_channels_that_a_system_mixes_stay(name):
    found = class_of(Between(OVER[name], 8, {"matrix": nn.Parameter(rand(8, 8))}), X)
    assert (found.status, found.reason.split(": ")[1]) == ("frozen", "solved over the channels")


class Delta(nn.Module):
    """One layer makes, for each head of keys, the key and its heads of values, as in Qwen3-Next."""

    def __init__(self, keys=4, values=8, width=3):
        super().__init__()
        self.keys, self.values, self.width = keys, values, width
        self.value_dim = values * width
        self.fused = nn.Linear(6, keys * (width + values // keys * width), bias=False)
        self.gate, self.out = nn.Linear(6, values, bias=False), nn.Linear(self.value_dim, 2)

    def forward(self, x):
        rows = self.fused(x).view(*x.shape[:2], self.keys, self.width + self.width * self.values // self.keys)
        key, value = rows.split([self.width, self.values // self.keys * self.width], 3)
        value = value.reshape(*x.shape[:2], -1, self.width)
        key = key.repeat_interleave(self.values // self.keys, 2)
        gate = self.gate(x).reshape(*x.shape[:2], self.values).transpose(1, 2)
        key, value = (each.transpose(1, 2).reshape(len(x), -1, 2, 2, self.width) for each in (key, value))
        gate = gate.reshape(len(x), -1, 2, 2, 1)
        value = value * gate
        made = torch.zeros_like(value)  # has a channel for each number of a head, what is written one for each head
        for chunk in range(2):
            made[:, :, chunk] = (key @ key.mT)[:, :, chunk] @ value[:, :, chunk] @ torch.eye(self.width)
        made = made.reshape(len(x), -1, 4, self.width).transpose(1, 2)
        return self.out(made.reshape(*x.shape[:2], self.value_dim))


def test_a_head_of_keys_goes_with_those_of_its_values():
    model = Delta()
    rows = list(range(9, 18))  # head 1 of four: 3 of its key, 6 of its two heads of values
    zeros = {"fused__weight": [(0, rows)], "gate__weight": [(0, [2, 3])], "out__weight": [(1, list(range(6, 12)))]}
    left, _ = left_after(model, (X,), **zeros)
    assert left == {"fused.weight": (27, 6), "gate.weight": (6, 6), "out.weight": (2, 18), "out.bias": (2,)}
    assert (model.keys, model.values, model.width, model.value_dim) == (3, 6, 3, 18)
