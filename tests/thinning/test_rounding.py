"""Outputs that rounding alone changes: a sort of equal scores is not held against the channels that went."""

from __future__ import annotations

import torch
from torch import nn

from potstill.thinning import thin


class Sorted(nn.Module):
    """Scores that are equal but for rounding; which of them come first is what it returns."""

    def __init__(self):
        super().__init__()
        self.first, self.scores = nn.Linear(8, 24), nn.Linear(24, 64)

    def forward(self, x):
        scores = self.scores(self.first(x)).sum() * torch.arange(1, 65) / torch.arange(1, 65)
        return scores.argsort(descending=True).double()


@torch.no_grad()
def prepared(model):
    model.first.weight[[3, 4]] = 0
    model.first.bias[[3, 4]] = 0
    return model


def test_a_sort_of_equal_scores_does_not_keep_channels():
    recipe = thin(prepared(Sorted()), torch.randn(2, 8))
    assert {change.name: change.new_shape for change in recipe.tensors}["first.weight"] == (22, 8)
