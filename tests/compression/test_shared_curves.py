"""Policies of one learning-rate curve: one goes on where another has come to, at the very rates."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from potstill.compression import LRPolicy
from potstill.compression.learning_rates import MultiStepMultiGammaLR, PiecewiseLR, PolynomialLR
from potstill.compression.schedule import dict_config
from potstill.compression.scheduler import CompressionScheduler
from potstill.compression.timeline import timeline


def rates(number, equal=False):
    """So many policies that each follow the rate in an epoch of their own, of one instance or of equal ones."""
    names = [f"lr{place}" if equal else "lr" for place in range(number)]
    policies = [{"lr_scheduler": {"instance_name": name}, "epochs": [epoch]} for epoch, name in enumerate(names)]
    curve = {"class": "ExponentialLR", "gamma": 0.9}
    return {"lr_schedulers": dict.fromkeys(names, curve), "policies": policies}


@pytest.mark.parametrize("equal", [False, True])
def test_a_curve_is_not_followed_from_the_start_by_each_policy(equal, monkeypatch):
    steps, get_lr = [], lr_scheduler.ExponentialLR.get_lr
    monkeypatch.setattr(lr_scheduler.ExponentialLR, "get_lr", lambda self: (steps.append(self), get_lr(self))[1])

    def course(number):
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = dict_config(model, optimizer, rates(number, equal), example_inputs=torch.zeros(2, 4))
        steps.clear()
        return [epoch.rate for epoch in timeline(scheduler, optimizer, number)], len(steps)

    (_, few), (found, many) = course(20), course(80)
    assert many == 4 * few == 80
    expected = [0.1]
    for _ in range(79):
        expected.append(expected[-1] * 0.9)
    assert found == expected


CURVES = {
    "step": partial(lr_scheduler.StepLR, step_size=3, gamma=0.7),
    "milestones": partial(lr_scheduler.MultiStepLR, milestones=[2, 7], gamma=0.3),
    "cosine": partial(lr_scheduler.CosineAnnealingLR, T_max=5, eta_min=1e-3),
    "restarts": partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=3, T_mult=2),
    "one cycle": partial(lr_scheduler.OneCycleLR, max_lr=0.5, total_steps=20),
    "cycles": partial(lr_scheduler.CyclicLR, base_lr=0.01, max_lr=0.2, step_size_up=3),
    "linear": partial(lr_scheduler.LinearLR, total_iters=6),
    "constant": partial(lr_scheduler.ConstantLR, total_iters=4),
    "polynomial": partial(PolynomialLR, total_iters=9, power=1.5),
    "gammas": partial(MultiStepMultiGammaLR, milestones=[2, 7], gammas=[0.3, 2.0]),
    "pieces": partial(PiecewiseLR, pieces=[[1, 6, 0.1, 0.4, "cosine"], [8, 12, 0.4, 0.0, "linear"]]),
    "lambda": partial(lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 0.8**epoch),
    "factors": partial(lr_scheduler.MultiplicativeLR, lr_lambda=lambda epoch: 0.9 if epoch % 2 else 1.1),
}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_a_policy_that_goes_on_where_another_stands_gives_the_rates_of_one_that_takes_all_steps(curve):
    def course(leading):
        model = nn.Linear(2, 2)
        groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": 0.03}]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        scheduler = CompressionScheduler(model)
        for epoch in (0, 1, 4, 5, 6, 9, 12, 15):
            scheduler.add_policy(LRPolicy(curve, optimizer, leading), epochs=[epoch, epoch + 3])
        seen = []
        for epoch in range(19):
            scheduler.on_epoch_begin(epoch, optimizer)
            scheduler.on_epoch_end(epoch, optimizer)
            seen.append([(group["lr"], group["momentum"]) for group in optimizer.param_groups])
        return seen, copy.deepcopy(scheduler.state_dict()["policies"])

    assert course({}) == course(None)
