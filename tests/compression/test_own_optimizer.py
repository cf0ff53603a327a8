"""Attaching: to this model's optimizer, at the step where training is; copies are not attached."""

import copy
import logging

import pytest
import torch
from torch import nn

from potstill.compression import dict_config

X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))
STEPS = 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))


def configured(model, optimizer=None, cls="L1RankedStructureParameterPruner_AGP"):
    rate = {"initial_sparsity": 0.25, "final_sparsity": 0.75} if cls.endswith("AGP") else {"desired_sparsity": 0.5}
    schedule = {
        "version": 1,
        "pruners": {"p": {"class": cls, "weights": ["0.weight"], **rate}},
        "policies": [{"pruner": {"instance_name": "p"}, "starting_epoch": 1, "ending_epoch": 4}],
    }
    return dict_config(model, optimizer, schedule, example_inputs=X[:1])


def steps(model, optimizer, number):
    for _ in range(number):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()


def dead(model):
    return int((model[0].weight.flatten(1) == 0).all(1).sum())


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3),
    "momentum": lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-3),  # has its state from the beginning
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_that_has_made_steps_needs_the_schedulers_state(kind):
    model = network()
    optimizer = OPTIMIZERS[kind](model.parameters())
    configured(model, optimizer).attach(optimizer, STEPS).remove()
    steps(model, optimizer, 4)
    scheduler = configured(model, optimizer)
    with pytest.raises(ValueError, match="has made steps .* of which the scheduler knows nothing") as error:
        scheduler.attach(optimizer, STEPS)
    for line in ("optimizer.load_state_dict(", "scheduler.load_state_dict(", "scheduler.attach(optimizer, 3, steps="):
        assert line in str(error.value)
    assert scheduler.attachment is None
    scheduler.attach(optimizer, STEPS, steps=0)
    steps(model, optimizer, STEPS)
    assert dead(model) == 2  # of epoch 1


def test_the_schedulers_state_tells_the_steps():
    def begin():
        model = network()
        optimizer = OPTIMIZERS["momentum"](model.parameters())
        return model, optimizer, configured(model, optimizer)

    model, optimizer, scheduler = begin()
    scheduler.attach(optimizer, STEPS)
    steps(model, optimizer, 7)
    stored = copy.deepcopy([part.state_dict() for part in (model, optimizer, scheduler)])
    steps(model, optimizer, 8)
    again = begin()
    for part, state in zip(again, stored, strict=True):
        part.load_state_dict(state)
    assert again[2].attach(again[1], STEPS).steps == 7
    steps(*again[:2], 8)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again[0].parameters(), strict=True))
    other = begin()
    other[2].load_state_dict(stored[2])
    with pytest.raises(ValueError, match=r"state is of epoch 2, minibatch 1 of 3, and an epoch has 5 now"):
        other[2].attach(other[1], 5)


@pytest.mark.parametrize("attach", [False, True])
def test_another_models_optimizer_is_refused(attach):
    model, other = network(), OPTIMIZERS["momentum"](network().parameters())
    with pytest.raises(ValueError, match=r"this optimizer \(SGD\) has 6 parameters, none of them of the model"):
        configured(model).attach(other, STEPS) if attach else configured(model, other)


def test_some_of_the_models_parameters_are_enough():
    model, second = network(), nn.Linear(2, 2)
    optimizer = torch.optim.SGD([*model[4].parameters(), *second.parameters()], 0.1)
    assert configured(model, optimizer).attach(optimizer, STEPS).optimizer is optimizer


@pytest.mark.parametrize(
    "cls", ["L1RankedStructureParameterPruner_AGP", "ActivationAPoZRankedFilterPruner", "GradientRankedFilterPruner"]
)
def test_a_copy_is_detached_watches_its_own_model_and_says_so(cls, caplog):
    caplog.set_level(logging.WARNING, "potstill")
    model = network()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    scheduler = configured(model, optimizer, cls)
    assert copy.deepcopy(scheduler).attachment is None
    assert not caplog.messages
    scheduler.attach(optimizer, STEPS)
    twin = copy.deepcopy(scheduler)
    assert [text for text in caplog.messages if "copy" in text] == [
        "the copy of an attached scheduler is not attached: call attach on it, with an optimizer of its own model"
    ]
    assert twin.attachment is None
    assert scheduler.attachment is not None
    own = OPTIMIZERS["momentum"](twin.model.parameters())
    twin.attach(own, STEPS)
    steps(twin.model, own, 2 * STEPS)
    assert dead(twin.model) > 0
    assert dead(model) == 0


def orthogonal():
    """The layer's weight is made of the parameter as a whole: its filters are nobody's outputs."""
    return nn.Sequential(nn.utils.parametrizations.orthogonal(nn.Linear(6, 8)), nn.BatchNorm1d(8), nn.Linear(8, 2))


def scaled():
    """Filters of zeros give filters of zeros."""

    class Scaled(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(x, torch.special.i1(self.weight), self.bias)

    return nn.Sequential(Scaled(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


@pytest.mark.parametrize(
    ("make", "name", "followed"),
    [(orthogonal, "0.parametrizations.weight.original", False), (scaled, "0.weight", True)],
)
def test_what_follows_is_hidden_or_named(make, name, followed, caplog):
    caplog.set_level(logging.WARNING, "potstill")
    model = make()
    nn.init.ones_(model[0].bias)
    schedule = {
        "version": 1,
        "pruners": {"p": {"class": "L1RankedStructureParameterPruner", "desired_sparsity": 0.5, "weights": [name]}},
        "policies": [{"pruner": {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": 3}],
    }
    scheduler = dict_config(model, None, schedule, example_inputs=torch.randn(2, 6))
    for epoch in range(3):
        scheduler.on_epoch_begin(epoch, None, 1)
    hidden = (model.get_parameter(name) == 0).all(1)
    assert int(hidden.sum()) == 4
    assert bool((model[0].bias[hidden] == 0).all()) == followed
    told = [text for text in caplog.messages if name in text and "biases and norms behind pruned filters stay" in text]
    assert len(told) == (not followed)
