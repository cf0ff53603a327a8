"""Learning-rate schedulers beside torch's own, and all of torch's through a schedule."""

import math

import pytest
import torch

from potstill.compression.language.signatures import classes
from potstill.compression.learning_rates import PiecewiseLR
from potstill.compression.schedule import MultiStepMultiGammaLR, PolynomialLR, ScheduleError, dict_config, load_schedule


def rates(cls, steps: int, lr: float = 0.4, **args) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = cls(optimizer, **args)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_each_milestone_has_its_own_factor():
    found = rates(MultiStepMultiGammaLR, 6, milestones=[2, 3, 5], gammas=[0.5, 0.1, 0.2])
    assert found == pytest.approx([0.4, 0.4, 0.2, 0.02, 0.02, 0.004, 0.004])


def test_equal_factors_are_torchs_multi_step():
    found = rates(MultiStepMultiGammaLR, 9, milestones=[2, 5], gammas=[0.3, 0.3])
    assert found == pytest.approx(rates(torch.optim.lr_scheduler.MultiStepLR, 9, milestones=[2, 5], gamma=0.3))


def test_pieces_go_from_rate_to_rate_and_stay_between():
    pieces = [[1, 3, 0.1, 0.3, "linear"], [5, 9, 0.2, 0.0, "cosine"]]
    halves = [0.2 * (1 + math.cos(math.pi * part / 4)) / 2 for part in range(5)]
    assert rates(PiecewiseLR, 10, pieces=pieces) == pytest.approx([0.4, 0.1, 0.2, 0.3, 0.3, *halves, 0.0])
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in (0.4, 0.04)]
    optimizer = torch.optim.SGD(groups)
    PiecewiseLR(optimizer, [[0, 1, 0.1, 0.1, "linear"]])
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.01])
    with pytest.raises(ValueError, match="piece 2, from epoch 2 to 4, must begin at 3"):
        PiecewiseLR(optimizer, [[0, 3, 1, 1, "linear"], [2, 4, 1, 1, "linear"]])
    with pytest.raises(ValueError, match="at least one"):
        PiecewiseLR(optimizer, [])


def test_polynomial_follows_distillers_formula_up_to_its_end():
    found = rates(PolynomialLR, 8, T_max=6, power=1.5)
    assert found == pytest.approx([0.4 * max(0, 1 - epoch / 6) ** 1.5 for epoch in range(9)])
    assert found == rates(torch.optim.lr_scheduler.PolynomialLR, 8, total_iters=6, power=1.5)
    assert rates(PolynomialLR, 8) == rates(torch.optim.lr_scheduler.PolynomialLR, 8)


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"class": "MultiStepMultiGammaLR", "milestones": [1, 2], "gammas": [0.1]}, "2 milestones but 1 gammas"),
        ({"class": "MultiStepMultiGammaLR", "milestones": [2, 1], "gammas": [0.1, 1]}, "milestones [2, 1] must rise"),
        ({"class": "PolynomialLR", "T_max": 3, "total_iters": 3}, "give either total_iters or T_max"),
        ({"class": "PolynomialLR", "T_max": 0}, "lr_schedulers.l.T_max: must be a whole number of at least 1, not 0"),
        ({"class": "CyclicLR", "base_lr": 0.1, "max_lr": 0.2, "mode": "triangle"}, "must be one of triangular, "),
        ({"class": "ReduceLROnPlateau", "mode": "mx"}, "mode: must be one of min, max, not the text 'mx'"),
        ({"class": "ReduceLROnPlateau", "factor": 2}, "refuses its arguments: Factor should be < 1.0"),
        ({"class": "StepLR", "step_size": 3, "last_epoch": 3}, "lr_schedulers.l.last_epoch: there is no such argument"),
        ({"class": "CyclicLR", "base_lr": -0.1, "max_lr": 0.2}, "base_lr: must be a number of at least 0 or a list"),
        (
            {"class": "CyclicLR", "base_lr": 0.1, "max_lr": 0.2, "step_size_up": -5},
            "step_size_up: must be a whole number",
        ),
        ({"class": "CyclicLR", "base_lr": 0.1, "max_lr": 0.2, "scale_fn": "x"}, "scale_fn: takes a Python object"),
        ({"class": "OneCycleLR", "max_lr": -1, "total_steps": 9}, "max_lr: must be a number of at least 0"),
        (
            {"class": "OneCycleLR", "max_lr": 1, "total_steps": 9, "div_factor": -3},
            "div_factor: must be a number above 0",
        ),
        ({"class": "ReduceLROnPlateau", "min_lr": -1}, "min_lr: must be a number of at least 0"),
        ({"class": "ReduceLROnPlateau", "threshold": -2}, "threshold: must be a number of at least 0"),
        ({"class": "SequentialLR"}, "SequentialLR takes other scheduler objects, which a schedule cannot give"),
    ],
)
def test_mistakes_are_told(definition, message):
    policies = [{"lr_scheduler": {"instance_name": "l"}, "epochs": [0]}]
    with pytest.raises(ScheduleError) as caught:
        load_schedule({"lr_schedulers": {"l": definition}, "policies": policies}, None)
    assert message in str(caught.value)


ARGUMENTS = {
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [1, 3]},
    "MultiStepMultiGammaLR": {"milestones": [1, 3], "gammas": [0.5, 0.1]},
    "ExponentialLR": {"gamma": 0.9},
    "CosineAnnealingLR": {"T_max": 4},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 0.2, "step_size_up": 2},
    "OneCycleLR": {"max_lr": 0.2, "total_steps": 9},
    "PiecewiseLR": {"pieces": [[0, 2, 0.1, 0.4, "linear"], [3, 5, 0.2, 0.0, "cosine"]]},
}


@pytest.mark.parametrize("name", sorted(set(classes("lr_schedulers")) - {"ReduceLROnPlateau"}))
def test_every_scheduler_works_from_a_schedule(name):
    net = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.4, momentum=0.9)
    definition = {"class": name, **ARGUMENTS.get(name, {})}
    policies = [{"lr_scheduler": {"instance_name": "l"}, "starting_epoch": 0, "ending_epoch": 4}]
    scheduler = dict_config(net, optimizer, {"lr_schedulers": {"l": definition}, "policies": policies})
    found = []
    for epoch in range(4):
        scheduler.on_epoch_end(epoch, optimizer)
        found.append(optimizer.param_groups[0]["lr"])
    cls = classes("lr_schedulers")[name]
    expected = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4, momentum=0.9)
    plain = cls(expected, **ARGUMENTS.get(name, {}))
    for rate in found:
        expected.step()
        plain.step()
        assert rate == pytest.approx(expected.param_groups[0]["lr"])
