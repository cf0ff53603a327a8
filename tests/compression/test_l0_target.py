"""Targets: expected sizes against the channel graph's own counts, the multiplier, landing on the goal."""

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, RegularizationPolicy, Step, Window
from potstill.compression.declare.names import resolve
from potstill.compression.regularizers import L0Regularizer
from potstill.compression.regularizers.l0.budget import Budget
from potstill.compression.regularizers.l0.constraint import GAIN, Constraint, elapsed
from potstill.compression.regularizers.l0.final_gates import CLOSE, nearest, protected
from potstill.compression.regularizers.l0.gated_channels import GatedChannels
from potstill.models import create_model
from potstill.thinning import count_macs, trace

from .gated import CASES, GatedRun

ARCHITECTURES = {
    "googlenet_cifar": "inception_blocks.*conv.weight",
    "resnet20_cifar": "*conv*.weight",
    "mobilenet_v2": "features.*.conv.*.weight",
}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_expected_sizes_are_those_of_the_channel_graph(arch: str) -> None:
    model = create_model(arch, 10, 3)
    graph = trace(model, torch.zeros(2, 3, 32, 32))
    weights = [name for name in resolve([ARCHITECTURES[arch]], model) if model.get_parameter(name).dim() > 1]
    channels = GatedChannels(graph, weights)
    names = [name for name, _ in model.named_parameters()]
    probabilities = torch.rand(len(channels), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alive = torch.cat([probabilities, torch.ones(1)])[channels.layout.gates]
    parameters = Budget.of_parameters(graph, names, channels.layout)
    macs = Budget.of_macs(graph, channels.layout)
    assert parameters.total == sum(p.numel() for p in model.parameters())
    expected = graph.parameter_count(alive, names).item()
    assert float(parameters.share(probabilities) * parameters.total) == pytest.approx(expected)
    assert macs.total == graph.macs(torch.ones_like(alive)).item()
    assert macs.share(probabilities) * macs.total == pytest.approx(graph.macs(alive).item())


def test_expected_sizes_have_the_gradient_of_a_direct_sum() -> None:
    run = GatedRun("depthwise")
    graph = run.scheduler.graph()
    channels = run.gates._channels
    names = [name for name, _ in run.model.named_parameters()]
    p = torch.rand(len(channels), dtype=torch.float64, requires_grad=True)
    share = Budget.of_parameters(graph, names, channels.layout).share(p)
    direct = graph.parameter_count(torch.cat([p, torch.ones(1)])[channels.layout.gates], names) / sum(
        q.numel() for q in run.model.parameters()
    )
    (one,), (two,) = torch.autograd.grad(share, p), torch.autograd.grad(direct, p)
    assert torch.allclose(one, two, atol=1e-12)


def a_constraint(rate: float = 0.5, ramp: float = 0.0) -> tuple[Constraint, int]:
    run = GatedRun("plain")
    names = [name for name, _ in run.model.named_parameters()]
    budget = Budget.of_parameters(run.scheduler.graph(), names, run.gates._channels.layout)
    return Constraint(budget, 0.6, rate, ramp), len(run.gates._channels)


def test_the_multiplier_rises_with_the_violation_and_starts_again_when_the_goal_is_met() -> None:
    constraint, count = a_constraint()
    everything = torch.ones(count)
    assert constraint.term(everything, 0.5).item() == pytest.approx(GAIN * 0.4**2)
    constraint.update()
    assert constraint.multiplier.item() == pytest.approx(0.5 * 0.4)
    assert constraint.term(everything, 0.5).item() == pytest.approx((GAIN * 0.4 + 0.5 * 0.4) * 0.4)
    constraint.update()
    assert constraint.multiplier.item() == pytest.approx(0.5 * 0.8)
    constraint.term(torch.zeros(count), 0.5)
    constraint.update()
    assert constraint.multiplier.item() == 0


def test_the_goal_sinks_during_the_ramp() -> None:
    constraint, count = a_constraint(rate=1.0, ramp=0.5)
    for progress, violation in [(0.0, 0.0), (0.25, 0.2), (0.5, 0.4), (0.9, 0.4)]:
        constraint.multiplier = torch.zeros(())
        constraint.term(torch.ones(count), progress)
        constraint.update()
        assert constraint.multiplier.item() == pytest.approx(violation, abs=1e-6)


def test_time_in_the_window_counts_minibatches() -> None:
    assert elapsed(Window.between(2, 4), Step(2, 0, 10)) == 0
    assert elapsed(Window.between(2, 4), Step(3, 5, 10)) == pytest.approx(0.75)
    assert elapsed(Window.between(10, 20, unit="minibatch"), Step(1, 5, 10)) == pytest.approx(0.5)


@pytest.mark.parametrize("goal", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("spread", [(-4.0, 4.0), (1.0, 3.0), (-6.0, -2.0)])
def test_the_fold_meets_the_target_from_any_gates(goal: float, spread: tuple[float, float]) -> None:
    run = GatedRun("plain", strength=None, target_sparsity=goal).begin()
    run.spread_gates(*spread)
    dense = sum(p.numel() for p in run.model.parameters())
    run.scheduler.finish()
    run.scheduler.thin(run.optimizer)
    left = sum(p.numel() for p in run.model.parameters())
    assert 1 - left / dense == pytest.approx(goal, abs=0.022)  # one channel of this network is 0.03 to 0.1 of it


@pytest.mark.parametrize("goal", [0.3, 0.45, 0.6])
@pytest.mark.parametrize("seed", range(4))
def test_of_large_channels_the_nearest_of_all_sizes_comes_out(goal: float, seed: int) -> None:
    """Against every pair of numbers of channels of two layers."""
    model = nn.Sequential(nn.Linear(9, 14), nn.ReLU(), nn.Linear(14, 11), nn.ReLU(), nn.Linear(11, 3))
    graph = trace(model, torch.zeros(2, 9))
    channels = GatedChannels(graph, ["0.weight", "2.weight"])
    budget = Budget.of_parameters(graph, [name for name, _ in model.named_parameters()], channels.layout)
    places = torch.rand(25, generator=torch.Generator().manual_seed(seed))
    spared = protected(places, channels)
    found = nearest(places, spared, Constraint(budget, 1 - goal, 0.5, 0.8))
    sizes = [10 * a + (a + 1) * b + 3 * b + 3 for a in range(1, 15) for b in range(1, 12)]
    best = min(abs(size / sizes[-1] - (1 - goal)) for size in sizes)
    assert abs(budget.share(found.double()).item() - (1 - goal)) <= max(best, CLOSE) + 1e-9
    assert bool(found[spared].all())


def test_the_fold_opens_and_shuts_the_gates_nearest_to_the_threshold() -> None:
    run = GatedRun("plain", strength=None, target_sparsity=0.405).begin()  # that many of its channels are 0.405 of it
    log_alpha = run.spread_gates()
    run.scheduler.finish()
    opened = run.gates._gates.deterministic() > 0
    order = log_alpha.argsort(descending=True)
    exchanged = int((~opened[order[: int(opened.sum())]]).sum())
    assert exchanged <= 2


@pytest.mark.parametrize(
    ("arch", "weights", "aim"),
    [
        ("googlenet_cifar", ARCHITECTURES["googlenet_cifar"], {"target_sparsity": 0.6}),
        ("resnet20_cifar", ARCHITECTURES["resnet20_cifar"], {"target_sparsity": 0.6}),
        ("resnet20_cifar", ARCHITECTURES["resnet20_cifar"], {"target_macs": 0.5}),
    ],
)
def test_real_networks_end_within_a_hundredth_of_the_target(arch: str, weights: str, aim: dict) -> None:
    torch.manual_seed(0)
    model, images = create_model(arch, 10, 3), torch.randn(4, 3, 32, 32)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    scheduler = CompressionScheduler(model, images)
    gates = L0Regularizer([weights], droprate_init=0.2, gate_lr=0.3, **aim)
    scheduler.add_policy(RegularizationPolicy(gates), starting_epoch=0, ending_epoch=1)
    size, macs = sum(p.numel() for p in model.parameters()), count_macs(model, images[:1])
    for i in range(3):
        scheduler.on_minibatch_begin(0, i, 3, optimizer)
        loss = scheduler.before_backward_pass(0, i, 3, model(images).square().mean(), optimizer)
        optimizer.zero_grad()
        loss.backward()
        scheduler.before_parameter_optimization(0, i, 3, optimizer)
        optimizer.step()
        scheduler.on_minibatch_end(0, i, 3, optimizer)
    scheduler.thin(optimizer)
    if "target_sparsity" in aim:
        assert 1 - sum(p.numel() for p in model.parameters()) / size == pytest.approx(aim["target_sparsity"], abs=0.01)
    else:
        assert count_macs(model, images[:1]) / macs == pytest.approx(aim["target_macs"], abs=0.01)


def test_training_drives_the_expected_size_to_the_goal() -> None:
    run = GatedRun("plain", strength=None, target_sparsity=0.5, epochs=(0, 40), minibatches=10)
    run.train(*range(39))
    metrics = run.scheduler.metrics()
    assert metrics["l0.expected_sparsity"] == pytest.approx(0.5, abs=0.05)
    assert set(metrics) == {f"l0.{key}" for key in (
        "penalty", "expected_sparsity", "gated_sparsity", "open_gates", "mean_gate", "multiplier")}  # fmt: skip


def test_all_cases_reach_a_target() -> None:
    for case in CASES:
        run = GatedRun(case, strength=None, target_macs=0.7, epochs=(0, 1)).train(0)
        assert run.policy.metrics()["l0.gated_sparsity"] > 0, case
