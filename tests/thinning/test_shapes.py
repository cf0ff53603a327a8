"""Views: which axes of a parameter or of channels can still be told apart."""

from __future__ import annotations

import importlib

import torch
from torch import nn
from torch.nn import functional as F

from .networks import Between, class_of, rand

analyse = importlib.import_module("potstill.thinning.trace").analyse


class Flattened(nn.Module):
    """A convolution as a product of its flattened filters with patches."""

    def __init__(self):
        super().__init__()
        self.first, self.conv, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.last((self.conv.weight.flatten(1) @ F.unfold(self.first(x), 3)).mT)


def test_filters_and_inputs_of_flattened_filters_are_channels_and_their_positions_are_not():
    analysis = analyse(Flattened(), rand(2, 3, 8, 8))

    def reasons(dim):
        numbers = analysis.graph.frozen[analysis.numbers.labels[analysis.log.ids["conv.weight", dim]]]
        return {analysis.log.reasons[number].split(": ")[1] if number >= 0 else "" for number in numbers}

    assert [reasons(dim) for dim in range(4)] == [{""}, {""}, {"the size of a kernel"}, {"the size of a kernel"}]


def test_the_size_of_torchs_attention_stays():
    parts = {"att": nn.MultiheadAttention(8, 2)}
    found = class_of(Between(lambda m, x: m.att(x[None], x[None], x[None])[0][0], parts=parts), torch.randn(4, 6))
    assert found.status == "frozen" and "nn.MultiheadAttention shares its embedding size" in found.reason
