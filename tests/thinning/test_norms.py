"""Normalisations: statistics over parts of a tensor, vectors of any layout, layers that arrive whole."""

from __future__ import annotations

import pytest
from torch import nn
from torch.nn import functional as F

from .networks import Between, Networks, Whole, class_of, images, left_after, rand

LEFT = {
    # What is averaged stays; of the 8 channels in front 5 stay where that is allowed.
    "one_pixel": (8 * 28 + 16 + 8 * 4 + 4, 5 * 28 + 10 + 5 * 4 + 4),
    "rows_of_pixels": (8 * 28 + 2 * 8 * 16 + 8 * 4 + 4, 5 * 28 + 2 * 5 * 16 + 5 * 4 + 4),
}
model = Networks({}, untouched=set(LEFT), left=LEFT)


@model
def one_pixel():
    return (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.LayerNorm((8, 1, 1)), nn.Conv2d(8, 4, 1)),
        images(),
    )


@model
def rows_of_pixels():
    norm = nn.LayerNorm((8, 1, 16))
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d((1, 16)), norm, nn.Conv2d(8, 4, 1)
    ), images()


@pytest.mark.parametrize("name", model)
def test_exact(name, thinned):
    model.check(name, thinned)


def test_groups_of_channels_of_two_axes_stay():
    found = class_of(Between(lambda m, x: F.group_norm(x.view(len(x), 4, 2), 2).flatten(1)), rand(4, 6))
    assert (found.status, found.reason.split(": ")[1]) == ("frozen", "varies within the image")


def test_a_root_mean_square_that_arrives_whole_makes_up_for_channels_that_go():
    model = Whole(lambda m, x: m.norm(x), parts={"norm": nn.RMSNorm(8, 0.3)})
    dead = [(0, [1, 2, 6])]
    left, recipe = left_after(model, (rand(4, 6),), (0.01 * rand(4, 6),), first__weight=dead, first__bias=dead)
    assert (left["first.weight"], left["norm.weight"], left["second.weight"]) == ((5, 6), (5,), (3, 5))
    assert "rescaled for means over fewer channels: norm.weight" in str(recipe)
