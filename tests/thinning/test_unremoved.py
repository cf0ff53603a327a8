"""Channels that are zero where they are made and stay: the recipe says why."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from potstill.thinning import thin

from .networks import left_after


class Choice(nn.Module):
    """Adds 1 where the input is positive on average."""

    def __init__(self, activation=torch.relu):
        super().__init__()
        self.first, self.second, self.activation = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), activation

    def forward(self, x):
        y = self.activation(self.first(x))
        return self.second(torch.where(x.mean((1, 2, 3), keepdim=True) > 0, y, y + 1))


def normed(*layers):
    return nn.Sequential(nn.Conv2d(3, 8, 3), *layers, nn.ReLU(), nn.Conv2d(8, 4, 3))


class Directions(nn.Module):
    """Weights of length 1."""

    def forward(self, weight):
        return weight / torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True)


def measured():
    """The norm of the second layer's weights runs over the first one's channels, and nothing makes up for a part."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    register_parametrization(model[2], "weight", Directions())
    return model


@pytest.mark.parametrize(
    ("model", "use", "why"),
    [
        (normed(nn.GroupNorm(1, 8)), "0.weight[0]", "native_group_norm in 1 (GroupNorm): averages over the channels"),
        (measured(), "0.weight[0]", "its removal may change another sum over it (a norm of weights, say)"),
        (Choice(), "first.weight[0]", "zero where it is made, but that is lost in aten.where in the model (Choice)"),
        (Choice(torch.sigmoid), "first.weight[0]", "that is lost in aten.where in the model (Choice)"),
    ],
    ids=["inexact", "measured", "lost", "constant lost"],
)
def test_what_stays_is_said(model, use, why):
    with torch.no_grad():
        for parameter in model.parameters():
            if len(parameter) == 8:
                parameter[2:4] = 0
    recipe = thin(model, torch.randn(2, 3, 9, 9))
    assert recipe.removes_nothing
    (kept,) = recipe.refused
    assert (kept.channels, kept.use) == (2, use)
    assert why in kept.reason
    assert "zero or constant, but kept:" in str(recipe)


def test_instance_norm_with_zero_weight_and_bias_lets_channels_go():
    model, x = normed(nn.InstanceNorm2d(8, affine=True)), torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        for parameter in [*model[0].parameters(), *model[1].parameters()]:
            parameter[2:4] = 0
        expected = model(x)
        recipe = thin(model, x)
        assert len(model[0].weight) == 6
        assert recipe.refused == ()
        assert torch.allclose(model(x), expected, atol=1e-6)


class MeanSquare(nn.Module):
    """Divides by a root mean square in its own code, where nothing can make up for fewer channels."""

    def __init__(self):
        super().__init__()
        self.first, self.scale, self.out = nn.Linear(6, 8), nn.Parameter(torch.ones(8)), nn.Linear(8, 4)

    def forward(self, x):
        x = self.first(x)
        return self.out(x * (x.square().mean(1, keepdim=True) + 1e-6).rsqrt() * self.scale)


def test_a_mean_keeps_zeros_and_not_what_scales_them():
    left, recipe = left_after(
        MeanSquare(), (torch.randn(5, 6),), first__weight=[(0, [1, 4])], first__bias=[(0, [1, 4])]
    )
    assert left["first.weight"] == (8, 6)
    assert (
        "aten.mean in the model (MeanSquare): a mean over the channels (allow_inexact=True" in recipe.refused[0].reason
    )
