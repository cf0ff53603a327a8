"""Operations that choose or compare: dead channels go, and nothing is taken for constant that is not."""

import pytest
import torch
from torch import nn

from potstill.thinning import thin

FUNCTIONS = {
    "greater": lambda x: (x > 0).float(),
    "times greater": lambda x: x * (x > 0),
    "in place": lambda x: x.mul_(x > 0),
    "unequal": lambda x: (x != 0).float(),
    "of truth": lambda x: torch.logical_not(x).float(),
    "sign": lambda x: x.sign(),
    "nan to number": lambda x: x.nan_to_num(),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "where zero": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "where zero on a device": lambda x: torch.where(x > 0, x, torch.zeros_like(x, device=x.device)),
    "where a number": lambda x: torch.where(x > 0.1, x, torch.tensor(0.0)),
    "where not a number": lambda x: torch.where(torch.isnan(x), torch.zeros_like(x), x),
    "masked fill": lambda x: x.masked_fill(x < 0, 0.0),
    "heaviside": lambda x: torch.heaviside(x, torch.tensor(0.0)),
    "maximum": lambda x: torch.maximum(x, x.new_zeros(())),
    "fmax": lambda x: torch.fmax(x, torch.zeros_like(x)),
    "close": lambda x: torch.isclose(x, torch.ones_like(x)).float(),
}


class Between(nn.Module):
    """Two convolutions with a function in between."""

    def __init__(self, function):
        super().__init__()
        self.first, self.second, self.function = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), function

    def forward(self, x):
        return self.second(self.function(self.first(x)))


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_dead_channels_go_and_no_others(function):
    """Two of eight filters are zero; what others become is never known, though it may be the same for all inputs."""
    model, x = Between(function), torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        for tensor in model.first.parameters():
            tensor[2:4] = 0
        expected = model(x)
        thin(model, x)
        assert len(model.first.weight) == 6
        assert torch.allclose(model(x), expected, atol=1e-6)


def test_other_values_chosen_for_a_dead_channel_keep_it():
    """1 where the channel is 0: the constant moves into the bias of the next layer, which has no padding."""
    model, x = Between(lambda x: torch.where(x == 0, torch.ones_like(x), x)), torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        for tensor in model.first.parameters():
            tensor[2:4] = 0
        expected = model(x)
        recipe = thin(model, x)
        assert len(model.first.weight) == 6
        assert [fold.name for fold in recipe.folds] == ["second.bias"]
        assert torch.allclose(model(x), expected, atol=1e-6)


class Turned(nn.Module):
    """Heads in the last dimension; a bias of all of them is turned the same way."""

    def __init__(self):
        super().__init__()
        self.first, self.bias, self.second = nn.Linear(8, 20), nn.Parameter(torch.randn(20)), nn.Linear(20, 3)

    def forward(self, x):
        x = self.first(x).unflatten(1, (4, -1)).transpose(1, 2) + self.bias.unflatten(0, (4, -1)).t()
        return self.second(x.sigmoid().transpose(1, 2).flatten(1))


def test_the_values_of_a_parameter_move_along_when_it_is_transposed():
    """The second of five places in each of four heads is constant, another constant in each."""
    model, x, places = Turned(), torch.randn(4, 8), [1, 6, 11, 16]
    with torch.no_grad():
        model.first.weight[places], model.first.bias[places] = 0, 0
        expected = model(x)
        recipe = thin(model, x)
        assert len(model.bias) == 16
        assert not any("number or order" in str(kept) for kept in recipe.frozen)
        assert torch.allclose(model(x), expected, atol=1e-6)


class Complex(nn.Module):
    """A linear layer in complex numbers, to which a parameter and a number are added."""

    def __init__(self, number):
        super().__init__()
        self.first, self.second, self.number = nn.Linear(6, 8), nn.Linear(8, 3), number
        self.shift = nn.Parameter(torch.randn(8, dtype=torch.complex64))

    def forward(self, x):
        return self.second((self.first(x) * (1 + 1j) + self.shift + self.number).abs())


@pytest.mark.parametrize(("number", "left"), [(0, 6), (2j, 8)])
def test_complex_numbers_without_real_part_are_not_zero(number, left):
    model, x = Complex(number), torch.randn(4, 6)
    with torch.no_grad():
        for tensor in (model.first.weight, model.first.bias, model.shift):
            tensor[2:4] = 0
        model.shift[4] = 1j
        expected = model(x)
        recipe = thin(model, x)
        assert len(model.first.weight) == left
        assert not any("number or order" in str(kept) for kept in recipe.frozen)
        assert torch.allclose(model(x), expected, atol=1e-6)


def test_constants_are_cut_off_when_they_become_integers():
    model, x = Between(lambda x: x.int().float()), torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        model.first.weight[2:4], model.first.bias[2:4] = 0, torch.tensor([0.7, 1.7])
        expected = model(x)
        thin(model, x)
        assert len(model.first.weight) == 6
        assert torch.allclose(model(x), expected, atol=1e-6)
