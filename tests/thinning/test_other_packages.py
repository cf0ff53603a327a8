"""Habits of code in packages other than torchvision, timm and transformers, each in a tiny network of its own."""

from __future__ import annotations

import copy
import importlib.util

import pytest
import torch
from torch import nn

from potstill.thinning import load, save, thin, trace
from potstill.thinning.testing import make_sensitive, zero_channels

X = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def thinned(model, x=X):
    """Zero 30 % of what can be removed, thin, compare with the masked model; return the recipe."""
    make_sensitive(model, x)
    zero_channels(model, trace(model, x))
    before = copy.deepcopy(model)(x)
    recipe = thin(model, x)
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)
    return recipe


class OneHead(nn.Module):
    """Attention of one head whose code takes the width of the queries for that of keys and values too."""

    def __init__(self, width):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Conv1d(width, width, 1) for _ in range(4))

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        width = q.shape[1]
        weights = torch.bmm(q.view(len(x), width, -1).mT, k.view(len(x), width, -1)).softmax(-1)
        return x + self.out(torch.bmm(v.view(len(x), width, -1), weights.mT))


def test_channels_whose_number_is_taken_from_others_go_with_those():
    model = nn.Sequential(nn.Conv1d(3, 12, 1), OneHead(12), OneHead(12), nn.Conv1d(12, 4, 1))
    thinned(model)
    for layer in (model[1], model[2]):
        assert {len(one.weight) for one in (layer.q, layer.k, layer.v)} == {9}
        assert layer.out.weight.shape == (9, 9, 1)


class Checked(nn.Module):
    """Checks its input by a number of its own before it does anything."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, x):
        if x.shape[1] != self.channels:
            raise ValueError(f"{x.shape[1]} channels instead of {self.channels}")
        return self.conv(x)


def test_a_number_by_which_a_module_checks_its_input_follows():
    class Block(nn.Module):
        def __init__(self, inputs, channels):
            super().__init__()
            self.conv = nn.Conv1d(inputs, channels, 3, padding=1)

        def forward(self, x):
            return self.conv(x).relu()

    model = nn.Sequential(Block(3, 10), Checked(10), Block(10, 20), Checked(20), nn.Conv1d(20, 4, 1))
    thinned(model)
    assert (model[1].channels, model[3].channels) == (7, 14)


class Axes(nn.Module):
    """Splits or joins heads by the lengths of axes that it keeps as a dict, for its text and copies, and as pairs."""

    def __init__(self, join, **lengths):
        super().__init__()
        self.join = join
        self.lengths = lengths
        self._pairs = tuple(lengths.items())

    def __getstate__(self):
        return {"join": self.join, "lengths": self.lengths}

    def __setstate__(self, state):
        self.__init__(state["join"], **state["lengths"])

    def forward(self, x):
        ((_, heads),) = self._pairs
        if not self.join:
            return x.unflatten(-1, (heads, -1)).transpose(1, 2)
        if x.shape[1] != heads:
            raise ValueError("another number of heads")
        return x.transpose(1, 2).flatten(2)


class Heads(nn.Module):
    def __init__(self, width=16, heads=4):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, width, bias=False) for _ in range(3))
        self.apart, self.join, self.out = Axes(False, h=heads), Axes(True, h=heads), nn.Linear(width, 5)

    def forward(self, x):
        q, k, v = (self.apart(one(x)) for one in (self.q, self.k, self.v))
        return self.out(self.join((q @ k.mT / 2).softmax(-1) @ v))


def test_lengths_of_axes_that_are_kept_as_a_dict_and_as_pairs(tmp_path):
    model = Heads()
    recipe = thinned(model)
    assert (model.apart.lengths, model.join._pairs) == ({"h": 3}, (("h", 3),))
    assert model.q.weight.shape == (12, 6)
    assert copy.deepcopy(model)(X).shape == model(X).shape  # copies are made from the dict
    save(model, recipe, tmp_path / "small.safetensors")
    torch.testing.assert_close(load(Heads(), tmp_path / "small.safetensors")(X), model(X))
    spec = importlib.util.spec_from_file_location("small", tmp_path / "small.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.testing.assert_close(module.load(Heads())(X), model(X))


class Table(nn.Module):
    """Makes a table on first use and keeps it as a buffer; it has another operation in training."""

    def __init__(self):
        super().__init__()
        self.layer, self.out = nn.Linear(6, 8), nn.Linear(8, 2)
        self.register_buffer("table", None, persistent=False)

    def forward(self, x):
        if self.table is None:
            self.register_buffer("table", torch.arange(x.shape[1]).float().unsqueeze(-1), persistent=False)
        x = self.layer(x).relu() * self.table
        return self.out(x.abs() if self.training else x)


@pytest.mark.parametrize("used", [False, True])
def test_a_buffer_that_the_first_run_makes(used):
    model = Table()
    if used:
        model(X)
    thinned(model)
    assert model.layer.weight.shape == (6, 6)


class Modulated(nn.Module):
    """Adds a table (parts, width) to what a layer makes for all parts, and shifts by one part."""

    def __init__(self, width=12):
        super().__init__()
        self.first, self.time = nn.Linear(6, width), nn.Linear(6, 2 * width)
        self.table = nn.Parameter(torch.randn(1, 1, 2, width))
        self.out = nn.Linear(width, 5)

    def forward(self, x):
        scale, shift = (self.table + self.time(x).unflatten(-1, (2, -1))).unbind(2)
        return self.out(self.first(x) * scale + shift)


def test_a_table_beside_parts_that_a_layer_makes_loses_width():
    model = Modulated()
    thinned(model)
    assert model.table.shape == (1, 1, 2, 9)
    assert (len(model.first.weight), len(model.time.weight)) == (9, 18)


class Captioned(nn.Module):
    """Views a second stream by the width of the first."""

    def __init__(self, width=10):
        super().__init__()
        self.first, self.other = nn.Linear(6, width), nn.Linear(6, width)
        self.apart, self.out, self.beside = nn.Linear(6, width), nn.Linear(width, 5), nn.Linear(width, 5)

    def forward(self, x):
        unlike, hidden = self.apart(x).relu(), self.first(x)
        other = self.other(x).view(len(x), -1, hidden.shape[-1])
        return self.out(hidden) + self.beside(other) + unlike.sum(-1, keepdim=True)


def test_a_stream_that_is_viewed_by_the_width_of_another_goes_with_it():
    graph = trace(Captioned(), X)
    assert torch.equal(graph.channels_of("first.weight"), graph.channels_of("other.weight"))
    assert not torch.isin(graph.channels_of("apart.weight"), graph.channels_of("first.weight")).any()
    assert all(bool((graph.channels_of(f"{name}.weight") > 0).all()) for name in ("first", "other", "apart"))


def test_gates_that_turn_channels_in_the_complex_plane():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.value, self.angle, self.size = (nn.Linear(6, 10) for _ in range(3))
            self.out = nn.Linear(10, 3)

        def forward(self, x):
            turn = torch.polar(self.size(x).sigmoid(), self.angle(x)) * torch.complex(self.value(x), self.angle(x))
            return self.out(turn.real)

    model = Turned()
    thinned(model)
    assert {len(layer.weight) for layer in (model.value, model.angle, model.size)} == {7}


class Scaled(nn.Module):
    """Normalizes and multiplies by the root of the width that it sees."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(6, 10), nn.Linear(6, 10), nn.Linear(20, 4)

    def forward(self, x):
        unit = nn.functional.normalize(self.first(x), dim=-1)
        return self.out(torch.cat((unit * unit.shape[-1] ** 0.5, self.second(x).relu() * 0.5), -1))


def test_a_number_that_is_computed_from_a_width_keeps_that_width_and_is_told():
    graph = trace(Scaled(), X)
    group = next(group for group in graph.classes() if ("first.weight", 0, "out") in group.uses)
    assert group.status == "frozen" and "computes a number from how many channels there are" in group.reason
    recipe = thinned(model := Scaled())
    assert (len(model.first.weight), len(model.second.weight)) == (10, 7)
    assert all(rest.reason == group.reason for rest in recipe.frozen if rest.use == "first.weight[0]")


class Columns(nn.Module):
    """Reads a category from a column of floats, and keeps its number of heads under a private name."""

    def __init__(self, heads=4):
        super().__init__()
        self._heads = heads
        self.embedding, self.first, self.out = nn.Embedding(5, 6), nn.Linear(8, 16), nn.Linear(16, 2)

    def forward(self, x):
        x = self.first(torch.cat((self.embedding(x[:, 0].long()), x[:, 1:]), 1))
        parts = x.view(len(x), self._heads, -1).softmax(-1)
        return self.out(parts.reshape(len(x), -1))


def test_floats_that_are_numbers_of_categories_and_private_numbers_of_heads():
    x = torch.cat((torch.randint(0, 5, (8, 1)).float(), torch.randn(8, 2)), 1)
    model = Columns()
    with torch.no_grad():
        model.out.weight[:, 4:8] = 0  # a whole head that nothing reads
    before = copy.deepcopy(model)(x)
    thin(model, x)
    assert (model._heads, len(model.first.weight)) == (3, 12)
    torch.testing.assert_close(model(x), before)


class Told(nn.Module):
    """Takes a slope from the values that it sees."""

    def __init__(self):
        super().__init__()
        self.first, self.slope, self.second, self.out = (
            nn.Linear(*sizes) for sizes in ((6, 10), (10, 1), (10, 8), (8, 4))
        )

    def forward(self, x):
        x = self.first(x).tanh()
        return self.out(nn.functional.leaky_relu(self.second(x), float(self.slope(x).sigmoid().mean())))


def test_a_number_that_is_taken_from_values_is_no_size():
    made = {use[0]: group.status for group in trace(Told(), X).classes() for use in group.uses if use[1:] == (0, "out")}
    assert (made["first.weight"], made["second.weight"]) == ("removable", "removable")
