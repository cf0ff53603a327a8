"""Statistics of BatchNorm behind the gates' window: those of the folded network on the window's last minibatches."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, RegularizationPolicy
from potstill.compression.processes.ranks import Ranks
from potstill.compression.regularizers import L0Regularizer
from potstill.compression.regularizers.l0.recalibration import Recalibration

STEPS = 6


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6),
        nn.Flatten(), nn.Linear(96, 3),
    )  # fmt: skip


def batch(index: int) -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(index))


def trained(number: int, until: int = STEPS, state: dict | None = None) -> tuple[nn.Module, CompressionScheduler]:
    """Weights do not move, so that the folded network is the one of each of the last minibatches."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    scheduler = CompressionScheduler(model, torch.zeros(2, 3, 8, 8))
    gates = L0Regularizer(["0.weight"], target_sparsity=0.3, droprate_init=0.3, gate_lr=1e-9, recalibrate=number)
    scheduler.add_policy(RegularizationPolicy(gates), starting_epoch=0, ending_epoch=1)
    first = 0
    if state is not None:
        model.load_state_dict(state["model"])
        scheduler.load_state_dict(state["scheduler"])
        first = state["step"]
    for i in range(first, until):
        if i == 0:
            scheduler.on_epoch_begin(0, optimizer, STEPS)
        scheduler.on_minibatch_begin(0, i, STEPS, optimizer)
        loss = scheduler.before_backward_pass(0, i, STEPS, model(batch(i)).square().mean(), optimizer)
        optimizer.zero_grad()
        loss.backward()
        scheduler.before_parameter_optimization(0, i, STEPS, optimizer)
        optimizer.step()
        scheduler.on_minibatch_end(0, i, STEPS, optimizer)
    return model, scheduler


@torch.no_grad()
def statistics(model: nn.Module, indices: range) -> dict[str, torch.Tensor]:
    """Those of a folded network, computed from what goes into its norms."""
    model = copy.deepcopy(model).eval()
    model[1].train(), model[5].train()
    means: dict[str, list[torch.Tensor]] = {"1": [], "5": []}
    for name, found in means.items():
        norm = model.get_submodule(name)
        norm.register_forward_pre_hook(lambda _, args, found=found: found.append(args[0].mean((0, 2, 3))))
    for index in indices:
        model(batch(index))
    return {name: torch.stack(found).mean(0) for name, found in means.items()}


@pytest.mark.parametrize("number", [1, 3])
def test_statistics_are_those_of_the_folded_network(number: int) -> None:
    model, scheduler = trained(number)
    assert scheduler.masks.of(scheduler.policies[0].name)
    expected = statistics(model, range(STEPS - number, STEPS))
    for name, mean in expected.items():
        found, lives = model.get_submodule(name).running_mean, mean != 0  # filters that are hidden now make 0
        assert lives.sum() >= 4
        assert torch.allclose(found[lives], mean[lives], atol=1e-5)


def test_without_it_they_are_as_training_left_them() -> None:
    model, _ = trained(0)
    other, _ = trained(2)
    assert not torch.allclose(model[5].running_mean, other[5].running_mean)
    assert torch.equal(model[0].weight, other[0].weight)


def test_a_resumed_run_gathers_what_the_other_did() -> None:
    whole, _ = trained(3)
    half, scheduler = trained(3, until=STEPS - 1)
    state = copy.deepcopy({"model": half.state_dict(), "scheduler": scheduler.state_dict(), "step": STEPS - 1})
    again, _ = trained(3, state=state)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_modes_hooks_and_copies_are_as_before() -> None:
    model, _ = trained(2, until=STEPS - 1)
    assert all(module.training for module in model.modules())
    twin = copy.deepcopy(model)
    assert twin(batch(0)).shape == (4, 3)
    model, _ = trained(2)
    assert not model._forward_pre_hooks


def test_frozen_norms_keep_theirs() -> None:
    model = network()
    model[1].eval()
    gathering = Recalibration(model)
    gathering.last(model, (batch(0),), {})
    before = model[1].running_mean.clone()
    gathering.gather(Ranks())
    gathering.apply()
    assert torch.equal(model[1].running_mean, before)
    assert not torch.equal(model[5].running_mean, torch.zeros(6))
