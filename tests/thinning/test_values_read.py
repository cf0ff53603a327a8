"""Code that reads values: only what depends on weights may lead a removal elsewhere, and hides no wrong guess."""

import pytest
import torch
from torch import nn

from potstill.thinning import trace
from potstill.thinning.tracing.values_read import ValuesRead

from .networks import left_after

X = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
HEAD = [(0, range(8, 16))]


class Masked(nn.Module):
    """Turns the first half of each head, of a width that equals the number of heads; looks at a mask."""

    def __init__(self):
        super().__init__()
        self.heads, self.width = 4, 8
        self.turned = 4
        self.inner, self.out = nn.Linear(6, 32), nn.Linear(32, 3)

    def looks(self, x, mask):
        return bool(mask.all())

    def forward(self, x, mask):
        inner = self.inner(x)
        inner = inner if self.looks(inner, mask) else inner * mask
        inner = inner.view(*x.shape[:2], self.heads, self.width)
        first, rest = inner[..., : self.turned], inner[..., self.turned :]
        return self.out(torch.cat((first.flip(-1), rest), -1).flatten(2))


class Padded(Masked):
    """Looks at its own activations, and pads by a number that equals the number of heads before."""

    def __init__(self):
        super().__init__()
        self.pad, self.heads, self.width = 4, 4, 8

    def looks(self, x, mask):
        return bool(x.abs().sum() >= 0)

    def forward(self, x, mask):
        inner = self.inner(x)
        inner = inner if self.looks(inner, mask) else inner * 2
        inner = nn.functional.pad(inner, (0, 0, self.pad, 0))[:, : -self.pad]
        return self.out(inner.view(*x.shape[:2], self.heads, self.width).relu().flatten(2))


@pytest.mark.parametrize("kind", [Masked, Padded])
def test_whole_heads_go_from_code_that_reads_values(kind):
    model = kind()
    left, _ = left_after(model, (X, torch.ones(2, 5, 1, dtype=torch.bool)), inner__weight=HEAD, inner__bias=HEAD)
    assert (left["inner.weight"], left["out.weight"]) == ((24, 6), (3, 24))


def test_what_is_computed_from_weights_is_followed():
    layer = nn.Linear(3, 3)
    layer.register_buffer("places", torch.arange(3))
    mask, x = torch.ones(3), torch.ones(1, 3)
    values = ValuesRead(layer, computes=True)
    made = layer(x)
    values.follow([mask, layer.places], [twice := mask * layer.places])
    values.read(twice)
    assert not values.differ
    values.follow([x, layer.weight, layer.bias], [made])
    values.follow([made], [total := made.sum()])
    values.read(total)
    assert values.differ


def test_on_the_meta_device_no_value_differs():
    layer = nn.Linear(3, 3, device="meta")
    values = ValuesRead(layer, computes=False)
    values.follow([layer.weight], [made := layer.weight * 2])
    values.read(made)
    assert not values.differ


class Listed(nn.Module):
    """Scales by a number that it takes from its values."""

    def __init__(self, take):
        super().__init__()
        self.take, self.first, self.slope, self.out = take, nn.Linear(6, 16), nn.Linear(16, 1), nn.Linear(16, 3)

    def forward(self, x):
        x = self.first(x)
        return self.out(nn.functional.leaky_relu(x, self.take(self.slope(x)) / 100))


TAKEN = {
    "item": lambda x: x.max().item(),
    "list": lambda x: max(max(row) for row in x.tolist()),
    "array": lambda x: float(x.numpy().max()),
}


@pytest.mark.parametrize("taken", TAKEN)
def test_numbers_that_are_taken_from_values_may_differ(taken):
    model, zero = Listed(TAKEN[taken]), [(0, [1, 4])]
    with torch.no_grad():
        left, _ = left_after(model, (X[0],), first__weight=zero, first__bias=zero)
    assert left["first.weight"] == (14, 6)


class Compares(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        x = self.first(x)
        return self.out(x.relu() if torch.equal(x, x.abs()) else x)


def test_what_is_compared_as_a_whole_stays_by_that_name():
    assert {group.reason for group in trace(Compares(), X[0]).classes() if group.size == 16} == {
        "aten.equal in the model (Compares): compared as a whole"
    }
