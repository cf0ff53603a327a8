"""A state that is refused changes nothing: neither the network nor the scheduler, whatever it is that refuses it."""

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from potstill.compression import CheckpointError, PruningPolicy, RegularizationPolicy, dict_config
from potstill.compression.policies.weight_average import WeightAverage
from potstill.compression.pruners import Pruner
from potstill.compression.regularizers import Regularizer

from .mutate import mutate_fields, no_hang
from .test_fuzz_files import SHORT, one_line


class Moody(Pruner):
    """A plugin's pruner, which trusts its state."""

    def __init__(self):
        self.kept = {"means": [0.5, 2.0], "seen": 3}

    def masks(self, view):
        weight = view.weights["0.weight"]
        return {"0.weight": weight.abs() > weight.abs().mean() * self.kept["means"][0]}

    def state_dict(self):
        return {"kept": dict(self.kept)}

    def load_state_dict(self, state):
        low, high = state["kept"]["means"]
        assert low < high, "means in a wrong order"
        self.kept = {"means": [low / 1, high / 1], "seen": state["kept"]["seen"] // 1}


class Drawn(Regularizer):
    """A plugin's regularizer, which trusts its state too."""

    drawn = 1.0

    def loss(self, weights, step):
        return weights["0.weight"].abs().sum() * 1e-3 * self.drawn

    def state_dict(self):
        return {"drawn": self.drawn}

    def load_state_dict(self, state):
        self.drawn = 1.0 / state["drawn"]


SCHEDULE = {
    "regularizers": {"gates": {"class": "L0Regularizer", "strength": 0.1, "weights": ["2.weight"]}},
    "policies": [{"regularizer": {"instance_name": "gates"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1}],
}
X = torch.linspace(-1, 1, 64).reshape(8, 8)


def trained(epochs):
    """A network and its scheduler: gates, two plugins behind them, and an average."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = dict_config(model, optimizer, SCHEDULE, example_inputs=X)
    scheduler.add_policy(RegularizationPolicy(Drawn()), epochs=[0, 1, 2, 3], name="drawn")
    scheduler.add_policy(PruningPolicy(Moody()), epochs=[0, 1], name="moody")
    scheduler.add_policy(WeightAverage(0.5), epochs=[0, 1], name="average")
    for epoch in range(epochs):
        scheduler.on_epoch_begin(epoch, optimizer)
        scheduler.on_minibatch_begin(epoch, 0, 1, optimizer)
        loss = scheduler.before_backward_pass(epoch, 0, 1, F.mse_loss(model(X), X[:, :3]), optimizer)
        optimizer.zero_grad()
        loss.backward()
        scheduler.before_parameter_optimization(epoch, 0, 1, optimizer)
        optimizer.step()
        scheduler.on_minibatch_end(epoch, 0, 1, optimizer)
        scheduler.on_epoch_end(epoch, optimizer)
    return model, scheduler


def portrait(value):
    if isinstance(value, dict):
        return {key: portrait(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [portrait(item) for item in value]
    return (value.dtype, tuple(value.shape), value.tolist()) if isinstance(value, torch.Tensor) else value


def picture(model, scheduler):
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    return portrait(model.state_dict()), portrait(scheduler.state_dict()), hooks


def wrong(path, value):
    def change(state):
        *outer, last = path
        for key in outer:
            state = state[key]
        state[last] = value

    return change


GATES = ["policies", "gates", "regularizer"]
AVERAGES = ["policies", "average", "averages"]


@pytest.mark.parametrize("epochs", [0, 1], ids=["before training", "in training"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (wrong(["policies", "moody", "pruner", "kept"], {"means": [2, 1], "seen": 1}), "policies.moody: .*wrong order"),
        (wrong(["policies", "moody", "pruner", "kept"], {"means": [1]}), "policies.moody: does not fit"),
        (wrong(["policies", "moody", "pruner"], None), "policies.moody: does not fit"),
        (wrong(["policies", "drawn", "regularizer", "drawn"], 0), "policies.drawn: does not fit"),
        (wrong(["masks", "masks", "0.weight", "moody", "mask"], torch.ones(2)), "expected a tensor of shape"),
        (wrong(["masks"], []), "masks: expected a mapping"),
        (wrong(["policies", "gates", "regularizer", "gates", "log_alpha"], torch.zeros(3)), "the state has 3 gates"),
        (wrong([*AVERAGES, "0.bias"], torch.full([8], float("nan"))), "average: averages.0.bias: .*not finite"),
        (
            wrong([*AVERAGES, "0.bias"], torch.zeros(8).double()),
            "average: averages.0.bias: expected a tensor of float32",
        ),
        (
            wrong([*AVERAGES, "0.bias"], torch.zeros(1).expand(7)),
            "average: averages.0.bias: expected a tensor of shape",
        ),
        (wrong(AVERAGES, {"0.weight": torch.zeros(8, 8)}), "average: averages.0.bias: is missing"),
        (wrong([*AVERAGES, "other"], torch.zeros(1)), "averages: has unknown fields"),
        (wrong([*AVERAGES[:2], "updates"], -1), "average: updates: expected a whole number"),
        (wrong([*AVERAGES[:2], "updates"], 2**60), "average: updates: expected a whole number"),
        (wrong([*GATES, "optimizer", "param_groups", 0, "betas"], (9e5, 0.9)), "Invalid beta"),
        (wrong(["recipes"], ["{}"]), "recipe"),
        (wrong(["removed"], {"moody": 7}), "removed"),
    ],
)
def test_what_is_refused_leaves_all_as_it_was(change, told, epochs):
    state = copy.deepcopy(trained(2)[1].state_dict())
    change(state)
    model, scheduler = trained(epochs)
    before = picture(model, scheduler)
    with pytest.raises(CheckpointError, match=told) as caught:
        scheduler.load_state_dict(state)
    assert "\n" not in str(caught.value)
    assert picture(model, scheduler) == before


def test_states_of_plugins_with_wrong_fields(mutations, fuzz_seed):
    """The long form is `--mutations 10000`."""
    sound = copy.deepcopy(trained(2)[1].state_dict())
    model, scheduler = trained(1)
    before, own, refused = picture(model, scheduler), copy.deepcopy(scheduler.state_dict()), 0
    weights = copy.deepcopy(model.state_dict())
    count = mutations if mutations > SHORT else mutations // 5
    for number in range(count):
        chance = random.Random(f"{fuzz_seed} state {number}")
        part = chance.choice([["policies", "moody"], ["policies", "drawn"], ["policies", "gates"],
                              ["policies", "average"], ["masks"], []])  # fmt: skip
        state = inner = copy.deepcopy(sound)
        for key in part:
            inner = inner[key]
        mutant, told = mutate_fields(inner, chance)
        state = mutant if not part else {**state, part[0]: {**state[part[0]], part[1]: mutant} if part[1:] else mutant}
        with no_hang():
            try:
                scheduler.load_state_dict(state)
            except CheckpointError as error:
                refused += one_line(error)
            else:
                model.load_state_dict(weights)
                scheduler.load_state_dict(own)
            assert picture(model, scheduler) == before, f"mutant {number} of seed {fuzz_seed}: {told}"
    assert 0 < refused < count
