"""Views: which axes of a parameter or of channels can still be told apart."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from potstill.thinning import trace

from .networks import Between, class_of, left_after, rand

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


SHAPED = {
    "view": lambda weight: weight.view(5, 8, 1),
    "unsqueezed": lambda weight: weight.unsqueeze(2),
    "copied": lambda weight: weight.unsqueeze(2).clone(),
}


@pytest.mark.parametrize("shaped", SHAPED.values(), ids=SHAPED)
def test_a_weight_that_is_only_shaped_stays_the_weight_of_its_layer(shaped):
    parts = {"weight": nn.Parameter(rand(5, 8))}
    model = Between(lambda m, x: F.conv1d(x.unsqueeze(2), shaped(m.weight)).squeeze(2), 5, parts)
    assert [layer.weight for layer in trace(model, rand(4, 6)).layers] == ["first.weight", "weight", "second.weight"]


def test_units_that_come_twice_go_twice():
    zero = [(0, [1, 5])]
    model = Between(lambda m, x: x.repeat(1, 2), 16)
    left, _ = left_after(model, (rand(4, 6),), first__weight=zero, first__bias=zero)
    assert (left["first.weight"], left["second.weight"]) == ((6, 6), (3, 12))


def test_halves_lose_the_same_positions():
    model = Between(lambda m, x: torch.cat(x.chunk(2, 1)[::-1], 1))
    zero = [(0, [1, 5])]
    assert left_after(model, (rand(4, 6),), first__weight=zero, first__bias=zero)[0]["first.weight"] == (6, 6)


def test_a_half_that_stays_as_an_integer_is_none():
    """Of sigmoid(0) = 0.5 an integer keeps 0: nothing is left to add to a bias."""
    model = Between(lambda m, x: x.sigmoid().to(torch.int64).float() + x)
    zero = [(0, [1, 5])]
    left, recipe = left_after(model, (rand(4, 6),), first__weight=zero, first__bias=zero)
    assert left["first.weight"] == (6, 6) and not recipe.folds
