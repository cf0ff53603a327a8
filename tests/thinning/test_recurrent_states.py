"""Recurrent layers and cells that are given a state: by nobody, by a size of theirs, by a number in the code."""

import importlib

import pytest
import torch
from torch import nn

from potstill.thinning import thin, trace
from potstill.thinning.dead import find_dead

from .networks import Between, class_of, left_after, rand

GATES = {nn.LSTMCell: 4, nn.GRUCell: 3, nn.RNNCell: 1, nn.LSTM: 4, nn.GRU: 3}
HIDDEN = {"none": 13, "attribute": 13, "number": 16, "ones": 16}
UNITS = [1, 5, 7]
FIXED = "starts from a given state of fixed size"


class Steps(nn.Module):
    """A cell, step by step, or a layer over all steps."""

    def __init__(self, kind, start):
        super().__init__()
        self.read = nn.Linear(4, 12)
        self.core = kind(12, 16)
        self.last = nn.Linear(16, 3)
        self.start = start

    def state(self, x):
        if self.start == "none":
            return None
        size = 16 if self.start == "number" else self.core.hidden_size
        shape = (x.shape[1], size) if isinstance(self.core, nn.RNNCellBase) else (1, x.shape[1], size)
        h = x.new_ones(shape) if self.start == "ones" else x.new_zeros(shape)
        return (h, torch.zeros_like(h)) if isinstance(self.core, (nn.LSTMCell, nn.LSTM)) else h

    def forward(self, x):
        x, state = self.read(x).relu(), self.state(x)
        if isinstance(self.core, nn.RNNBase):
            return self.last(self.core(x, state)[0][-1])
        for step in x:
            state = self.core(step, state)
        return self.last(state[0] if isinstance(state, tuple) else state)


@pytest.mark.parametrize("start", HIDDEN)
@pytest.mark.parametrize("kind", GATES, ids=lambda kind: kind.__name__)
def test_units_that_stay_zero_go(kind, start):
    """Units with zero weights go where they start at zero and the state's size follows; dead inputs always go."""
    model, x = Steps(kind, start), torch.randn(5, 2, 4)
    with torch.no_grad():
        for tensor in model.core.parameters():
            tensor.view(GATES[kind], 16, -1)[:, UNITS] = 0
        for tensor in model.read.parameters():
            tensor[:3] = 0
        expected = model(x)
        recipe = thin(model, x)
        assert model.core.hidden_size == HIDDEN[start]
        assert model.core.input_size == 9 or start == "number"
        assert torch.allclose(model(x), expected, atol=1e-6)
    said = [kept.reason for kept in recipe.frozen if kept.use.startswith("core.weight_ih")]
    assert bool(said) == (start == "number")


def test_steps_that_are_channels_stay():
    parts = {"rnn": nn.GRU(8, 8), "steps": nn.Parameter(torch.randn(5, 1, 1))}
    found = class_of(Between(lambda m, x: m.rnn(m.steps * x)[0].sum(0), parts=parts), torch.randn(4, 6), "steps")
    assert (found.status, found.reason) == ("frozen", "GRU in rnn (GRU): read step by step")


def test_recurrent_layers_are_traced_without_numbers(monkeypatch):
    tracing = importlib.import_module("potstill.thinning.trace")
    monkeypatch.setattr(tracing, "own_copy", None)  # a copy that keeps its numbers, for models that look at them
    model = nn.Sequential(nn.Linear(6, 8), Last(nn.LSTM(8, 10)), nn.Linear(10, 2))
    assert class_of(model, torch.randn(5, 4, 6), "1.layer.weight_hh_l0", 1).size == 10


class Last(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


class Given(nn.Module):
    """A layer that starts from a state: the last one of another, one that a linear layer makes, one that is learned."""

    def __init__(self, way, kind=nn.GRU, layers=1):
        super().__init__()
        self.way, self.core, self.out = way, kind(6, 8, layers), nn.Linear(8, 3)
        if way == "encoder":
            self.first = kind(6, 8, layers)
        elif way == "linear":
            self.first = nn.Linear(6, 8)
        else:
            self.first = nn.ParameterList([rand(layers, 1, 8)])

    def forward(self, x):
        if self.way == "encoder":
            state = self.first(x)[1]
        elif self.way == "linear":
            state = self.first(x.mean(0))[None].tanh()
        else:
            state = self.first[0].expand(-1, x.shape[1], -1).contiguous()
        return self.out(self.core(x, state)[0])


def gates(name, kind, layers):
    """Return the rows of some units in all gates of a recurrent layer."""
    rows = [(0, [8 * gate + unit for gate in range(GATES[kind]) for unit in (1, 4)])]
    names = [f"{part}_l{i}" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") for i in range(layers)]
    return {f"{name}__{part}": rows for part in names}


WAYS = {"encoder": (nn.GRU, 1), "two layers": (nn.LSTM, 2), "linear": (nn.GRU, 1), "learned": (nn.GRU, 1)}


@pytest.mark.parametrize("name", WAYS)
def test_a_given_state_has_the_units_of_the_layer_and_they_go_where_both_are_zero(name):
    kind, layers = WAYS[name]
    way = name if name in ("linear", "learned") else "encoder"
    core, rows = gates("core", kind, layers), [(0, [1, 4])]
    start = {
        "encoder": gates("first", kind, layers),
        "linear": {"first__weight": rows, "first__bias": rows},
        "learned": {"first__0": [(2, [1, 4])]},
    }[way]
    left, _ = left_after(Given(way, kind, layers), (rand(5, 2, 6),), (rand(7, 3, 6),), **core, **start)
    number = 6 * GATES[kind]
    assert (left["core.weight_hh_l0"], left["out.weight"]) == ((number, 6), (3, 6))
    assert (
        left["first.weight" if way == "linear" else "first.0" if way == "learned" else "first.weight_hh_l0"]
        == {
            "linear": (6, 6),
            "learned": (1, 1, 6),
            "encoder": (number, 6),
        }[way]
    )
    left, _ = left_after(Given(way, kind, layers), (rand(5, 2, 6),), **core)  # units that start as something else live
    assert left["core.weight_hh_l0"] == (8 * GATES[kind], 8)


def test_a_projected_layer_with_a_given_state_keeps_its_units():
    parts = {"start": nn.Linear(6, 4), "rnn": nn.LSTM(8, 8, proj_size=4)}
    x = rand(2, 6)
    model = Between(
        lambda m, y: m.rnn(y[None], (m.start(x)[None], torch.zeros(1, 2, 8)))[0][0, :, [0, 1, 2, 3] * 2], parts=parts
    )
    found = class_of(model, x, "start.weight")
    assert found.status == "frozen" and "the state that a recurrent layer starts from" in found.reason


def test_a_state_that_a_cell_is_given_has_its_units():
    model = Between(lambda m, x: m.cell(rand(4, 5), x), parts={"cell": nn.GRUCell(5, 8)})
    assert ("cell.weight_hh", 1) in {use[:2] for use in class_of(model, rand(4, 6)).uses}


def test_units_of_a_cell_that_is_given_a_state_of_fixed_size_stay():
    model = Between(lambda m, x: m.cell(x, torch.eye(4, 8)), parts={"cell": nn.GRUCell(8, 8)})
    found = class_of(model, rand(4, 6), "cell.weight_hh")
    assert (found.status, found.reason.split(": ")[1]) == ("frozen", FIXED)


def test_what_a_layer_reads_of_the_input_and_its_units_from_a_fixed_state_stay():
    steps, state = rand(3, 4, 5), torch.eye(4, 8)[None]
    model = Between(lambda m, x: m.rnn(steps, state)[0][0] + x, parts={"rnn": nn.GRU(5, 8)})
    parts = (("rnn.weight_ih_l0", 1), ("first.bias", 0))
    reasons = [class_of(model, rand(4, 6), *part).reason for part in parts]
    assert reasons == [f"GRU in rnn (GRU): {why}" for why in ("reads an input of fixed size", FIXED)]


class Projected(nn.Module):
    """Outputs of 6 channels from 12 units; uses the last state of the outputs or that of the units, too."""

    def __init__(self, state):
        super().__init__()
        self.first, self.core, self.last = nn.Linear(4, 8), nn.LSTM(8, 12, proj_size=6), nn.Linear(6, 3)
        self.state, self.other = state, nn.Linear((6, 12)[state], 3)

    def forward(self, x):
        y, states = self.core(self.first(x).relu())
        return self.last(y) + self.other(states[self.state][0])


@pytest.mark.parametrize(("state", "columns"), [(0, 4), (1, 9)])
def test_units_and_outputs_of_a_projected_layer_go(state, columns):
    rows = [(0, [12 * gate + unit for gate in range(4) for unit in (1, 5, 7)])]
    zeros = {f"core__{name}_l0": rows for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    zeros |= {"core__weight_hr_l0": [(0, [0, 4])], "first__weight": [(0, [3])], "first__bias": [(0, [3])]}
    left, _ = left_after(Projected(state), (rand(5, 2, 4),), (rand(7, 2, 4),), **zeros)
    assert left == {
        "first.weight": (7, 4),
        "first.bias": (7,),
        "core.weight_ih_l0": (36, 7),
        "core.weight_hh_l0": (36, 4),
        "core.bias_ih_l0": (36,),
        "core.bias_hh_l0": (36,),
        "core.weight_hr_l0": (4, 9),
        "last.weight": (3, 4),
        "last.bias": (3,),
        "other.weight": (3, columns),
        "other.bias": (3,),
    }


def test_roles_of_a_projected_layer():
    roles = {(use.name, use.dim): use.role for use in trace(Projected(0), rand(5, 2, 4)).uses}
    parts = ("weight_ih", "weight_hh", "weight_hr")
    assert [roles[f"core.{part}_l0", dim] for part in parts for dim in (0, 1)] == ["out", "in"] * 3


def test_units_that_nothing_behind_reads_go_only_if_no_other_unit_does():
    model = nn.Sequential(nn.Linear(4, 8), Last(nn.GRU(8, 10)), nn.Linear(10, 3)).eval()
    with torch.no_grad():
        model[2].weight[:, 4] = 0
    weights = dict(model.named_parameters())
    analysis = importlib.import_module("potstill.thinning.trace").analyse(model, rand(5, 2, 4), weights)
    assert not find_dead(analysis, weights).channels.any()
