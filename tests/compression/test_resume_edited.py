"""A run goes on with another schedule than it began with: what the new one says holds."""

import pytest
import torch
from torch import nn

from potstill.compression import CheckpointError
from potstill.compression.schedule import dict_config

RANGE = {"starting_epoch": 0, "ending_epoch": 20}


def start(section, kind, definition, times=RANGE):
    torch.manual_seed(0)
    net = nn.Linear(6, 5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    policies = [{kind: {"instance_name": "p"}, **times}]
    return net, optimizer, dict_config(net, optimizer, {section: {"p": definition}, "policies": policies})


def rate(definition, times=RANGE):
    return start("lr_schedulers", "lr_scheduler", definition, times)


def train(run, epochs, losses=None):
    """The learning rate in each epoch's minibatches."""
    _, optimizer, scheduler = run
    rates = []
    for epoch in epochs:
        scheduler.on_epoch_begin(epoch, optimizer, 2)
        for i in range(2):
            scheduler.on_minibatch_begin(epoch, i, 2, optimizer)
            rates.append(optimizer.param_groups[0]["lr"])
            scheduler.on_minibatch_end(epoch, i, 2, optimizer)
        loss = 1.0 if losses is None else losses[epoch]
        scheduler.on_epoch_end(epoch, optimizer, {"min": loss, "max": -loss}, 2)
    return rates


def hand_over(old, new):
    new[0].load_state_dict(old[0].state_dict())
    new[1].load_state_dict(old[1].state_dict())
    new[2].load_state_dict(old[2].state_dict())
    return new


STEP = {"class": "StepLR", "step_size": 1, "gamma": 0.1}


@pytest.mark.parametrize("times", [RANGE, {"starting_minibatch": 0, "ending_minibatch": 99}, {"epochs": [0, 1, 3, 4]}])
@pytest.mark.parametrize(
    "definition",
    [
        {"class": "StepLR", "step_size": 3, "gamma": 0.5},
        {"class": "MultiStepLR", "milestones": [1, 4]},
        {"class": "MultiStepMultiGammaLR", "milestones": [1, 4], "gammas": [0.5, 0.2]},
        {"class": "CosineAnnealingLR", "T_max": 20},
        {"class": "OneCycleLR", "max_lr": 0.3, "total_steps": 99},
    ],
)
def test_the_rate_follows_the_new_curve_from_where_it_would_be(definition, times, caplog):
    old = rate(STEP, times)
    train(old, range(3))
    new = hand_over(old, rate(definition, times))
    assert "p: the schedule has another curve than the checkpoint, and the rate follows it" in caplog.text
    assert train(new, range(3, 6)) == train(rate(definition, times), range(6))[6:]


def test_the_same_curve_is_no_other_one(caplog):
    old = rate(STEP)
    train(old, range(3))
    assert train(hand_over(old, rate(STEP)), range(3, 6)) == train(rate(STEP), range(6))[6:]
    assert not caplog.records


def test_a_window_that_begins_later_is_waited_for():
    old = rate(STEP)
    train(old, range(2))
    later = {"starting_epoch": 3, "ending_epoch": 9}
    definition = {"class": "StepLR", "step_size": 3, "gamma": 0.5}
    now = old[1].param_groups[0]["lr"]
    assert train(hand_over(old, rate(definition, later)), range(2, 5)) == [now] * 4 + [0.05] * 2


def test_a_plateau_goes_on_counting():
    """Two bad epochs, then patience 2 instead of 5, and a factor of its own."""
    plateau = {"class": "ReduceLROnPlateau", "patience": 5, "factor": 0.5}
    losses = [1, 2, 2, 2, 2, 2]
    old = rate(plateau)
    train(old, range(3), losses)
    new = hand_over(old, rate(plateau | {"patience": 2, "factor": 0.1}))
    assert train(new, range(3, 6), losses)[::2] == pytest.approx([0.1, 0.01, 0.01])
    turned = hand_over(old, rate(plateau | {"mode": "max", "patience": 0}))
    assert train(turned, range(3, 6), [0, 0, 0, 1, 0, 0])[::2] == pytest.approx([0.1, 0.1, 0.1])


def test_a_plateau_after_a_curve_begins_with_the_rate_of_now():
    old = rate(STEP)
    train(old, range(2))
    new = hand_over(old, rate({"class": "ReduceLROnPlateau", "patience": 0, "factor": 0.5}))
    assert train(new, range(2, 5))[::2] == pytest.approx([0.001, 0.001, 0.0005])


def test_other_sensitivities_count_with_the_deviation_of_the_first_time():
    def pruner(sensitivity):
        return start("pruners", "pruner", {"class": "SensitivityPruner", "sensitivities": {"weight": sensitivity}})

    old = pruner(0.1)
    spread = old[0].weight.std().item()
    train(old, [0])
    old[0].weight.data.mul_(0.5)
    expected = old[0].weight.abs() > 0.7 * spread
    new = hand_over(old, pruner(0.7))
    train(new, [1])
    assert torch.equal(new[0].weight != 0, expected)
    assert 0 < expected.sum() < 30


def test_another_class_under_a_name_is_told():
    old = start("pruners", "pruner", {"class": "SensitivityPruner", "sensitivities": {"weight": 0.1}})
    new = start("pruners", "pruner", {"class": "SparsityLevelParameterPruner", "levels": {"weight": 0.1}})
    message = (
        "^policies.p: was a SensitivityPruner and is a SparsityLevelParameterPruner in this schedule: give it another"
    )
    with pytest.raises(CheckpointError, match=message):
        hand_over(old, new)
