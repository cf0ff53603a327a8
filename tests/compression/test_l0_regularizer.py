"""L0 regularization through a scheduler: window, folding, resume, thinning, errors."""

import copy
import io
import logging
import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from potstill.compression import CompressionScheduler, RegularizationPolicy, Step, Window, load_schedule
from potstill.compression.regularizers import L0Regularizer
from potstill.models import create_model
from potstill.thinning import thin

from .gated import CASES, GatedRun, randomize


def relative_gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("case", CASES)
def test_folding_changes_nothing_and_thinning_removes_what_is_shut(case: str) -> None:
    run = GatedRun(case).begin()
    log_alpha = run.spread_gates()
    shut = int(((torch.sigmoid(log_alpha) * 1.2 - 0.1) <= 0).sum())
    expected, size = run.outputs(), sum(p.numel() for p in run.model.parameters())
    run.scheduler.finish()
    assert shut > 0
    assert relative_gap(run.outputs(), expected) < 1e-6
    predicted = 1 - run.policy.metrics()["l0.gated_sparsity"]
    run.scheduler.thin(run.optimizer)
    assert relative_gap(run.outputs(), expected) < 1e-5
    assert sum(p.numel() for p in run.model.parameters()) == pytest.approx(predicted * size)


@pytest.mark.parametrize(
    ("arch", "weights"),
    [
        ("googlenet_cifar", ["inception_blocks.*conv.weight", "stem.conv.weight"]),
        ("resnet20_cifar", ["*conv*.weight"]),
    ],
)
def test_folding_is_exact_in_real_networks(arch: str, weights: list[str]) -> None:
    torch.manual_seed(0)
    model = create_model(arch, 10, 3)
    randomize(model)
    images = torch.randn(2, 3, 32, 32)
    scheduler = CompressionScheduler(model, images)
    gates = L0Regularizer(weights, strength=1.0)
    scheduler.add_policy(RegularizationPolicy(gates), starting_epoch=0, ending_epoch=1)
    scheduler.on_epoch_begin(0)
    with torch.no_grad():
        gates._gates.log_alpha.copy_(torch.linspace(-4, 4, len(gates._gates))[torch.randperm(len(gates._gates))])
    model.eval()
    expected = model(images)
    scheduler.finish()
    assert relative_gap(model(images), expected) < 1e-6
    recipe = thin(model, images)
    assert relative_gap(model(images), expected) < 1e-5
    assert recipe.parameters[1] < 0.8 * recipe.parameters[0]


def test_the_loss_is_strength_times_the_mean_probability() -> None:
    run = GatedRun("plain", strength=0.25).begin()
    log_alpha = run.spread_gates()
    run.outputs()
    loss = run.gates.loss({}, None)
    probability = torch.sigmoid(log_alpha - 2 / 3 * torch.log(torch.tensor(0.1 / 1.1)))
    assert loss.item() == pytest.approx(0.25 * probability.mean().item(), rel=1e-5)


def test_a_loop_that_goes_around_the_model_is_told_so() -> None:
    run = GatedRun("plain").begin()
    images, _ = run.batch(0, 0)
    loss = run.model.c(run.model.b(run.model.a(images))).sum()
    with pytest.raises(RuntimeError, match="l0: no forward pass of the whole model since the last loss"):
        run.scheduler.before_backward_pass(0, 0, 4, loss)


def test_gates_act_from_the_window_s_first_minibatch_to_its_last() -> None:
    run = GatedRun(epochs=(1, 3)).train(0)
    assert not run.model._forward_pre_hooks
    run.train(1)
    assert len(run.model._forward_pre_hooks) == 2  # gates, and the last input for the statistics of norms
    run.train(2)
    assert not run.model._forward_pre_hooks


def test_windows_may_count_minibatches() -> None:
    run = GatedRun()
    run.scheduler.policies.clear()
    gates = L0Regularizer(["inner.weight"], strength=0.1)
    run.scheduler.add_policy(RegularizationPolicy(gates), Window.between(2, 6, unit="minibatch"))
    seen = []

    def look(module: nn.Module, args: object) -> None:
        if module.training:
            seen.append(len(module._forward_pre_hooks))

    run.model.register_forward_pre_hook(look)
    run.train(0, 1)
    assert seen == [1, 1, 3, 3, 3, 3, 1, 1]  # gates, and the last input for the statistics of norms


def test_shut_gates_become_masks_of_the_whole_group_and_stay() -> None:
    run = GatedRun().begin()
    log_alpha = torch.full((14,), 3.0)
    log_alpha[[1, 6, 9]] = -5.0  # inner 1, outer 0 and 3, shared with the stem
    run.set_gates(log_alpha)
    run.scheduler.finish()
    sums = {name: p.detach().reshape(len(p), -1).abs().sum(1) for name, p in run.model.named_parameters()}
    dead = {name: (values == 0).nonzero().flatten().tolist() for name, values in sums.items()}
    for name in ("inner.weight", "inner_bn.weight", "inner_bn.bias"):
        assert dead[name] == [1]
    for name in ("outer.weight", "outer_bn.weight", "outer_bn.bias", "stem.weight", "stem_bn.weight", "stem_bn.bias"):
        assert dead[name] == [0, 3]
    run.train(1, 2)
    assert run.model.inner_bn.bias[1] == 0
    assert run.model.stem.weight[3].abs().sum() == 0
    assert run.model.stem_bn.weight[2] != 0


def test_one_channel_of_each_layer_stays_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    run = GatedRun("plain").begin()
    log_alpha = torch.full((18,), -6.0)
    log_alpha[4] = -5.0  # the most open of layer a
    log_alpha[10:] = 4.0
    run.set_gates(log_alpha)
    with caplog.at_level(logging.INFO):
        run.scheduler.finish()
    assert "l0: all gates of a.weight were shut; the most open one stays open" in caplog.text
    assert (run.model.a.weight.abs().sum(1) != 0).nonzero().flatten().tolist() == [4]


def test_a_resumed_run_equals_an_uninterrupted_one() -> None:
    whole = GatedRun(target_sparsity=0.4, strength=None, epochs=(1, 4)).train(0, 1, 2, 3, 4)
    first = GatedRun(target_sparsity=0.4, strength=None, epochs=(1, 4)).train(0, 1)
    file = io.BytesIO()
    torch.save([x.state_dict() for x in (first.model, first.optimizer, first.scheduler)], file)
    file.seek(0)
    model, optimizer, scheduler = torch.load(file, weights_only=True)
    torch.manual_seed(999)
    second = GatedRun(target_sparsity=0.4, strength=None, epochs=(1, 4))
    second.model.load_state_dict(model)
    second.scheduler.load_state_dict(scheduler)
    second.optimizer.load_state_dict(optimizer)
    assert torch.equal(second.outputs(), first.outputs())
    second.train(2, 3, 4)
    for (name, a), b in zip(whole.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert whole.scheduler.metrics() == second.scheduler.metrics()


def test_gates_neither_read_nor_advance_the_global_generator() -> None:
    states = []
    for begin in (0, 5):
        run = GatedRun(epochs=(begin, 6))
        torch.manual_seed(3)
        run.train(0)
        states.append(torch.random.get_rng_state())
    assert torch.equal(*states)


def test_a_gradient_that_is_not_finite_skips_the_step() -> None:
    run = GatedRun().train(0)
    gates, before = run.gates._gates, run.gates._gates.log_alpha.detach().clone()
    gates.log_alpha.grad = torch.full_like(before, torch.inf)
    run.gates.after_step(Step(0, 3, 4))
    assert torch.equal(gates.log_alpha, before)
    gates.log_alpha.grad = torch.ones_like(before)
    run.gates.after_step(Step(0, 3, 4))
    assert (gates.log_alpha < before).all()


def test_thinning_inside_of_the_window_keeps_the_gates_of_what_is_left() -> None:
    run = GatedRun(target_sparsity=0.5, strength=None, epochs=(0, 3)).train(0)
    for tensor in (run.model.inner.weight, run.model.inner_bn.weight, run.model.inner_bn.bias):
        tensor.data[2] = 0
    for name in ("stem", "outer"):
        for tensor in (getattr(run.model, name).weight, *getattr(run.model, f"{name}_bn").parameters()):
            tensor.data[[0, 5]] = 0
    log_alpha, expected = run.spread_gates(), run.outputs()
    moments = run.gates._optimizer.state[run.gates._gates.log_alpha]["exp_avg"].clone()
    run.scheduler.thin(run.optimizer)
    kept = [0, 1, 3, 4, 5, 7, 8, 9, 10, 12, 13]
    assert torch.equal(run.gates._gates.log_alpha, log_alpha[kept])
    assert torch.equal(run.gates._optimizer.state[run.gates._gates.log_alpha]["exp_avg"], moments[kept])
    assert relative_gap(run.outputs(), expected) < 1e-6
    run.train(1, 2)
    size = sum(p.numel() for p in CASES["residual"][0]().parameters())
    run.scheduler.thin(run.optimizer)
    assert sum(p.numel() for p in run.model.parameters()) / size == pytest.approx(0.5, abs=0.06)


def test_failed_thinning_leaves_the_gates_on(monkeypatch: pytest.MonkeyPatch) -> None:
    run = GatedRun().begin()
    run.spread_gates()
    expected = run.outputs()

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("potstill.compression.thin_scheduled.thin", fail)
    with pytest.raises(RuntimeError, match="no"):
        run.scheduler.thin()
    assert torch.equal(run.outputs(), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"strength": None},
            "exactly one of strength, target_sparsity, target_macs, target_latency, target_milliseconds, not none",
        ),
        ({"target_macs": 0.5}, "not strength and target_macs"),
        ({"stretch": (0.1, 1.1)}, "must reach from below 0 to above 1, not from 0.1 to 1.1"),
        ({"weights": ["head.weight"]}, "head.weight cannot have gates: 3 of its 3 output channels cannot be removed"),
        ({"weights": ["inner.weigth"]}, "did you mean inner.weight"),
        ({"strength": None, "target_sparsity": 0.99}, "out of reach: .* the network is at sparsity 0.9"),
    ],
)
def test_what_cannot_be_is_refused_before_training(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GatedRun(**settings)


def test_windows_with_gaps_are_refused() -> None:
    run = GatedRun()
    with pytest.raises(ValueError, match="gates act at each time of their window"):
        run.scheduler.add_policy(
            RegularizationPolicy(L0Regularizer(["inner.weight"], strength=1.0)), epochs=[1, 3], name="gaps"
        )


def test_a_model_that_cannot_be_traced_is_refused() -> None:
    scheduler = CompressionScheduler(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2)))
    with pytest.raises(ValueError, match="gates need channels: CompressionScheduler"):
        scheduler.add_policy(RegularizationPolicy(L0Regularizer(["0.weight"], strength=1.0)), epochs=[0])


def test_a_second_policy_needs_gates_of_its_own() -> None:
    run = GatedRun()
    with pytest.raises(ValueError, match="these gates belong to l0"):
        run.scheduler.add_policy(RegularizationPolicy(run.gates), epochs=[5], name="again")


def test_a_copy_of_the_scheduler_s_model_can_be_traced_while_gates_act() -> None:
    run = GatedRun().begin()
    before = copy.deepcopy(run.scheduler.graph().shapes)
    run.scheduler._graph = None
    graph = run.scheduler.graph()
    assert graph.shapes == before
    assert len(graph.scales(graph.channels_of("inner.weight", 0))) == 12


def test_the_example_of_the_page_loads() -> None:
    page = (Path(__file__).parents[2] / "docs" / "l0.md").read_text()
    example, *_ = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (plan,) = load_schedule(yaml.safe_load(example), create_model("googlenet_cifar", 10, 3)).policies
    assert plan.window == Window.between(5, 9)
