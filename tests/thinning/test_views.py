"""Channels that a view lays out in blocks: whole blocks go, or the same place of each, whichever is zero."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from potstill.thinning import thin

BLOCK, BLOCKS, SIDE = 4, 5, 6


class Blocks(nn.Module):
    """A convolution whose channels are viewed as blocks of four; what follows reads sums over blocks, or all."""

    def __init__(self, view, end):
        super().__init__()
        self.conv, self.view, self.end, self.width = nn.Conv2d(3, BLOCK * BLOCKS, 3, padding=1), view, end, BLOCK
        self.unflatten = nn.Unflatten(1, (-1, BLOCK))
        self.read = nn.Linear(BLOCK if end == "sum" else BLOCK * BLOCKS, 7)

    def forward(self, x):
        y = VIEWS[self.view](self, self.conv(x).relu())
        if self.end == "sum":
            return self.read(y.sum(1).mean((2, 3)))
        return self.read((y.softmax(2) * y if self.end == "softmax" else y).flatten(1, 2).mean((2, 3)))


VIEWS = {
    "module": lambda self, x: self.unflatten(x),
    "unflatten": lambda self, x: x.unflatten(1, (-1, 4)),
    "view": lambda self, x: x.view(len(x), -1, 4, SIDE, SIDE),
    "divided": lambda self, x: x.reshape(len(x), x.shape[1] // 4, 4, SIDE, SIDE),
    "attribute": lambda self, x: x.view(len(x), -1, self.width, SIDE, SIDE),
}


def left(view, end, dead):
    """The number of parameters after channels of the convolution were zeroed, and the largest change of an output."""
    torch.manual_seed(0)
    model, x = Blocks(view, end).double().eval(), torch.randn(2, 3, SIDE, SIDE).double()
    with torch.no_grad():
        model.conv.weight[dead], model.conv.bias[dead] = 0, 0
        before = model(x)
    recipe = thin(model, x)
    return sum(p.numel() for p in model.parameters()), (model(x) - before).abs().max().item(), recipe


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("end", ["sum", "softmax", "all"])
def test_whole_blocks_go(view, end):
    parameters, gap, _ = left(view, end, [*range(4, 8), *range(12, 16)])
    channels = BLOCK * (BLOCKS - 2)
    assert parameters == channels * (3 * 9 + 1) + (BLOCK if end == "sum" else channels) * 7 + 7
    assert gap <= 1e-12


@pytest.mark.parametrize("view", ["module", "attribute"])
def test_the_same_place_of_all_blocks_goes_where_a_number_counts_places(view):
    parameters, gap, _ = left(view, "sum", [1, 5, 9, 13, 17])
    assert parameters == (BLOCK - 1) * BLOCKS * (3 * 9 + 1) + (BLOCK - 1) * 7 + 7
    assert gap <= 1e-12


def test_some_of_a_block_stays():
    parameters, _, recipe = left("view", "sum", [4, 5])
    assert parameters == BLOCK * BLOCKS * (3 * 9 + 1) + BLOCK * 7 + 7
    assert "groups, heads, halves" in recipe.refused[0].reason
