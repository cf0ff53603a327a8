"""Gates on parameters for the time of a forward pass."""

import copy
import gc
import io
import weakref

import pytest
import torch
from torch import Tensor, nn

from potstill.compression import dict_config

from .gated import CASES, GatedRun, with_factors

SCALED = {
    "plain": [(["a.weight", "a.bias"], slice(0, 10)), (["b.weight", "b.bias"], slice(10, 18))],
    "depthwise": [
        (["expand_bn.weight", "expand_bn.bias", "depth_bn.weight", "depth_bn.bias"], slice(0, 8)),
        (["project.weight", "project.bias"], slice(8, 12)),
    ],
    "residual": [
        (["inner_bn.weight", "inner_bn.bias"], slice(0, 6)),
        (["outer_bn.weight", "outer_bn.bias", "stem_bn.weight", "stem_bn.bias"], slice(6, 14)),
    ],
    "tied": [(["first.weight", "first.bias", "twice.weight", "twice.bias", "again.bias"], slice(0, 8))],
}
"""By case: which parameters the gates multiply, written out by hand."""


def factors_of(case: str, model: nn.Module, gates: Tensor) -> dict[str, Tensor]:
    factors = {}
    for names, part in SCALED[case]:
        for name in names:
            rank = model.get_parameter(name).dim()
            factors[name] = gates[part].view(-1, *[1] * (rank - 1))
    return factors


@pytest.mark.parametrize("case", CASES)
def test_evaluation_uses_the_deterministic_gates(case: str) -> None:
    run = GatedRun(case).begin()
    log_alpha = run.spread_gates()
    gates = (torch.sigmoid(log_alpha) * 1.2 - 0.1).clamp(0, 1)
    run.model.eval()
    images, _ = run.batch(5, 0)
    expected = with_factors(copy_without_hooks(case, run), factors_of(case, run.model, gates), images)
    assert torch.allclose(run.model(images), expected, atol=1e-6)
    assert not torch.allclose(expected, with_factors(copy_without_hooks(case, run), {}, images), atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_training_draws_gates_and_gives_the_gradients_of_scaled_parameters(case: str) -> None:
    run = GatedRun(case).begin()
    run.spread_gates(-2, 3)
    gates = run.gates._gates
    state = gates.state_dict()
    images, labels = run.batch(5, 0)
    run.model.train()
    plain = copy_without_hooks(case, run)
    nn.functional.cross_entropy(run.model(images), labels).backward()
    found = gates.log_alpha.grad.clone()

    gates.load_state_dict(state)
    gates.log_alpha.grad = None
    expected = with_factors(plain, factors_of(case, plain, gates.draw(training=True)), images)
    nn.functional.cross_entropy(expected, labels).backward()
    assert torch.allclose(found, gates.log_alpha.grad, atol=1e-6)
    for (name, parameter), other in zip(run.model.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(parameter.grad, other.grad, atol=1e-6), name


def copy_without_hooks(case: str, run: GatedRun) -> nn.Module:
    plain = CASES[case][0]()
    plain.load_state_dict(run.model.state_dict())
    return plain.train(run.model.training)


def test_two_training_passes_differ_and_two_evaluations_do_not() -> None:
    run = GatedRun("plain").begin()
    images, _ = run.batch(0, 0)
    run.model.train()
    assert not torch.equal(run.model(images), run.model(images))
    run.model.eval()
    assert torch.equal(run.model(images), run.model(images))


def test_nothing_is_seen_outside_of_the_forward_pass() -> None:
    run = GatedRun()
    before = {name: (id(p), p.detach().clone()) for name, p in run.model.named_parameters()}
    keys = list(run.model.state_dict())
    run.begin()
    run.model(run.batch(0, 0)[0])
    assert list(run.model.state_dict()) == keys
    for name, parameter in run.model.named_parameters():
        assert isinstance(parameter, nn.Parameter)
        assert id(parameter) == before[name][0]
        assert torch.equal(parameter, before[name][1])


def test_gates_of_two_policies_on_the_same_channels_multiply() -> None:
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    parts = {f"g{i}": {"class": "L0Regularizer", "weights": ["0.weight"], "strength": 1.0} for i in range(2)}
    policies = [{"regularizer": {"instance_name": name}, "starting_epoch": 0, "ending_epoch": 2} for name in parts]
    x = torch.randn(4, 6)
    scheduler = dict_config(net, None, {"regularizers": parts, "policies": policies}, example_inputs=x)
    before = {name: (id(parameter), parameter.detach().clone()) for name, parameter in net.named_parameters()}
    scheduler.on_epoch_begin(0, None, 1)
    factor = torch.ones(5)
    for seed, policy in enumerate(scheduler.policies):
        gates = policy.regularizer._gates
        gates.log_alpha.data.copy_(torch.linspace(-2, 2 + seed, 5))
        factor = factor * gates.deterministic().detach()
    weights = {name: value for name, (_, value) in before.items()}
    weights["0.weight"] = weights["0.weight"] * factor[:, None]
    weights["0.bias"] = weights["0.bias"] * factor
    hidden = torch.relu(x @ weights["0.weight"].T + weights["0.bias"])
    expected = hidden @ weights["2.weight"].T + weights["2.bias"]
    for _ in range(2):
        assert torch.allclose(net.eval()(x), expected, atol=1e-6)
        net.train()(x).sum().backward()
    for name, parameter in net.named_parameters():
        assert id(parameter) == before[name][0] and torch.equal(parameter, before[name][1])


def test_parameters_come_back_when_the_forward_pass_fails() -> None:
    run = GatedRun().begin()
    with pytest.raises(RuntimeError):
        run.model(torch.zeros(2, 5, 6, 6))
    held = [p for module in run.model.modules() for p in module._parameters.values() if p is not None]
    assert all(isinstance(p, nn.Parameter) for p in held)
    expected = run.outputs()
    assert torch.isfinite(expected).all()
    assert torch.equal(run.outputs(), expected)


def test_a_copy_computes_what_the_model_computes_in_evaluation_and_is_independent() -> None:
    run = GatedRun().begin()
    run.spread_gates()
    expected = run.outputs()
    twin = copy.deepcopy(run.model).eval()
    images, _ = run.batch(99, 0)
    assert torch.equal(twin(images), expected)
    assert all(isinstance(p, nn.Parameter) for p in twin.parameters())
    run.set_gates(torch.full((14,), 5.0))
    assert torch.equal(twin(images), expected)
    assert not torch.allclose(run.outputs(), expected)
    twin.inner_bn.weight.data.zero_()
    assert not torch.equal(run.model.inner_bn.weight, twin.inner_bn.weight)


def test_a_pickled_model_keeps_the_gates_of_evaluation() -> None:
    run = GatedRun().begin()
    run.spread_gates()
    file = io.BytesIO()
    torch.save(run.model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False).eval()
    assert torch.equal(loaded(run.batch(99, 0)[0]), run.outputs())


def test_a_copy_in_double_precision_works() -> None:
    run = GatedRun().begin()
    run.spread_gates()
    twin = copy.deepcopy(run.model).double().eval()
    images, _ = run.batch(99, 0)
    assert torch.allclose(twin(images.double()).float(), run.outputs(), atol=1e-5)


def test_models_with_gates_are_freed() -> None:
    run = GatedRun().train(0)
    model, log_alpha = weakref.ref(run.model), weakref.ref(run.gates._gates.log_alpha)
    del run
    gc.collect()
    assert model() is None
    assert log_alpha() is None


def test_hooks_are_gone_after_the_window() -> None:
    run = GatedRun(epochs=(0, 1)).train(0)
    assert not run.model._forward_pre_hooks
    assert not run.model._forward_hooks
