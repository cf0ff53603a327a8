"""What the comparison of outputs can say, and where it can say nothing."""

import copy

import pytest
import torch
from torch import nn

from potstill.thinning import ThinningError, thin

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten())
    with torch.no_grad():
        model[0].weight[:3], model[0].bias[:3] = 0, 0
    return model


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_outputs_that_are_no_numbers_prove_nothing(value):
    model = net()
    with torch.no_grad():
        model[2].bias[:] = value
    before = copy.deepcopy(model.state_dict())
    del before["2.bias"]
    with pytest.raises(ThinningError, match="all outputs of the model are NaN or infinite, first that of '2'"):
        thin(model, X)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert len(model[0].weight) == 8


def test_some_that_are_none_are_compared_as_they_are():
    model = net()
    with torch.no_grad():
        model[2].bias[1] = torch.nan
    assert thin(model, X).max_relative_difference <= 1e-5
    assert len(model[0].weight) == 5


class Slots:
    __slots__ = ("y",)

    def __init__(self, y):
        self.y = y


class Returning(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.net, self.how = net(), how

    def forward(self, x):
        return self.how(self.net(x))


@pytest.mark.parametrize("how", [lambda y: None, lambda y: y[:0], lambda y: "text", lambda y: (t for t in (y,))])
def test_what_returns_nothing_to_compare_is_refused(how):
    model = Returning(how)
    with pytest.raises(ThinningError, match="the model returns nothing that can be compared"):
        thin(model, X)
    assert len(model.net[0].weight) == 8


@pytest.mark.parametrize(
    "how", [lambda y: y.detach().numpy(), lambda y: {"loss": float(y.square().sum())}, Slots, lambda y: [y.tolist()]]
)
def test_numbers_and_objects_with_slots_are_compared(how):
    model = Returning(how)
    expected = model.net.eval()(X)
    recipe = thin(model, X)
    assert recipe.max_relative_difference <= 1e-5
    assert len(model.net[2].weight) == 4
    torch.testing.assert_close(model.net(X), expected)


def test_sizes_are_told_where_nothing_is_removed():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    size = sum(parameter.numel() for parameter in model.parameters())
    recipe = thin(model, X)
    assert recipe.removes_nothing
    assert recipe.parameters == (size, size)
    assert recipe.macs == (8 * 27 * 36 + 4 * 72 * 16,) * 2


class Within(nn.Module):
    """Takes numbers between 0 and 1 only."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        if not bool(((x >= 0) & (x <= 1)).all()):
            raise ValueError("not between 0 and 1")
        return self.net(x)


def test_inputs_that_may_not_be_random_are_compared_as_given():
    model, x = Within(), X.sigmoid()
    before = model(x)
    recipe = thin(model, x)
    assert len(model.net[0].weight) == 5
    torch.testing.assert_close(model(x), before)
    assert any("not between 0 and 1" in note for note in recipe.notes)
    with pytest.raises(ThinningError, match="not between 0 and 1"):
        thin(Within(), X)
