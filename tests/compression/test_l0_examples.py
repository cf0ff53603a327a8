"""Gates drawn for each example."""

import copy

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, RegularizationPolicy
from potstill.compression.regularizers import L0Regularizer

from .gated import GatedRun, with_factors
from .test_l0_gating import SCALED, copy_without_hooks


@pytest.mark.parametrize("case", ["plain", "residual"])
def test_each_example_has_gates_of_its_own(case: str) -> None:
    run = GatedRun(case, sampling="example").begin()
    run.spread_gates(-2, 3)
    for module in run.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # so that examples do not see each other
    gates, (images, _) = run.gates._gates, run.batch(0, 0)
    state = gates.state_dict()
    found = run.model(images)
    gates.load_state_dict(state)
    rows = gates.draw_rows(len(images))
    plain = copy_without_hooks(case, run).eval()
    for example, row in enumerate(rows):
        factors = {}
        for names, part in SCALED[case]:
            for name in names:
                factors[name] = row[part].view(-1, *[1] * (plain.get_parameter(name).dim() - 1))
        expected = with_factors(plain, factors, images[example : example + 1])
        assert torch.allclose(found[example : example + 1], expected, atol=1e-5)


def test_evaluation_and_folding_are_as_with_one_draw_for_a_minibatch() -> None:
    run, other = GatedRun(sampling="example").begin(), GatedRun().begin()
    assert torch.equal(run.spread_gates(), other.spread_gates())
    expected = other.outputs()
    assert torch.equal(run.outputs(), expected)
    run.scheduler.finish()
    assert torch.allclose(run.outputs(), expected, atol=1e-6)
    assert not any(module._forward_hooks for module in run.model.modules())


def test_training_with_gates_for_each_example_reaches_the_gates() -> None:
    run = GatedRun(sampling="example").begin()
    run.spread_gates(-1, 1)
    before = run.gates._gates.log_alpha.detach().clone()
    run.train(0)
    assert (run.gates._gates.log_alpha != before).all()


def test_a_batch_may_be_empty() -> None:
    run = GatedRun(sampling="example").begin()
    assert run.model(run.batch(0, 0)[0][:0]).shape[0] == 0


def test_a_copy_has_fixed_gates() -> None:
    run = GatedRun(sampling="example").begin()
    run.spread_gates()
    expected, twin = run.outputs(), copy.deepcopy(run.model).eval()
    images, _ = run.batch(99, 0)
    assert torch.equal(twin(images), expected)
    assert torch.isfinite(twin.train()(images)).all()
    assert torch.equal(run.outputs(), expected)


def test_modules_of_unknown_kind_are_refused_before_training() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.head = nn.Parameter(torch.randn(5, 4)), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(nn.functional.linear(x, self.weight)))

    scheduler = CompressionScheduler(Odd(), torch.zeros(1, 4))
    policy = RegularizationPolicy(L0Regularizer(["weight"], strength=1.0, sampling="example"))
    with pytest.raises(ValueError, match="sampling: example cannot gate weight of a Odd"):
        scheduler.add_policy(policy, epochs=[0])
