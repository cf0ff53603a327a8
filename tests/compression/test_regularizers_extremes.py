"""Penalties at the ends of what numbers can say: zero groups, scaled losses, half precision."""

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, RegularizationPolicy, Step, Window
from potstill.compression.regularizers import (
    GroupLassoRegularizer,
    GroupVarianceRegularizer,
    L1Regularizer,
    L2Regularizer,
)

HALF = [torch.float16, torch.bfloat16]
DTYPES = [*HALF, torch.float32, torch.float64]


def layer(dtype=torch.float32, value=None) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 6, 3)).to(dtype)
    if value is not None:
        nn.init.constant_(net[0].weight, value)
    return net


def penalty(regularizer, net: nn.Module) -> torch.Tensor:
    regularizer.bind(net)
    return regularizer.loss(dict(net.named_parameters()), Step(0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("strength", "scale"), [(5.0, 1.0), (1e-3, 65536.0), (0.1, 65536.0), (1.0, 8192.0)])
@pytest.mark.parametrize("group_type", ["Filters", "2D", "Rows+Cols"])
def test_the_gradient_of_a_zero_group_is_zero_at_any_strength_and_scale(dtype, strength, scale, group_type):
    """strength x scale / (smallest number) is infinite, and infinite x 0 is not a number."""
    net = layer(dtype)
    weight = net[0].weight
    weight.data[1], weight.data[2] = 0, weight.data[2] * 1e-3
    (penalty(GroupLassoRegularizer({"0.weight": (strength, group_type)}), net) * scale).backward()
    if group_type != "Rows+Cols":
        assert not weight.grad[1].any()
    double = weight.detach().double().requires_grad_()
    splits = {
        "Filters": [double.flatten(1)],
        "2D": [double.flatten(2).flatten(0, 1)],
        "Rows+Cols": [double.flatten(1), double.transpose(0, 1).flatten(1)],
    }[group_type]
    (scale * strength * sum(split.norm(dim=1).sum() for split in splits)).backward()
    assert torch.allclose(weight.grad.double(), double.grad, rtol=0.02 if dtype in HALF else 1e-4)


class Mixed(nn.Module):
    """A convolution in half precision with its norm in single: `model.half()` as people do it."""

    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 6, 3).to(dtype), nn.BatchNorm2d(6)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.last(self.norm(self.conv(x.to(self.conv.weight.dtype)).float()))


@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_zero_channels_of_coupled_groups_get_no_gradient(dtype):
    net = Mixed(dtype)
    names = ["conv.weight", "conv.bias", "norm.weight", "norm.bias"]
    for name in names:
        net.get_parameter(name).data[2] = 0
    regularizer = GroupLassoRegularizer({"conv.weight": (0.1, "Coupled")}, "Mean_Abs")
    scheduler = CompressionScheduler(net, torch.randn(1, 3, 5, 5))
    scheduler.add_policy(RegularizationPolicy(regularizer), Window.between(0, 2))
    weights = dict(net.named_parameters())
    (regularizer.loss(weights, Step(0)) * 65536).backward()
    for name in names:
        gradient = net.get_parameter(name).grad
        assert gradient.isfinite().all()
        assert not gradient[2].any()
        assert gradient[1].any() or name == "norm.bias"
    regularizer.proximal({name: weight.detach() for name, weight in weights.items()}, dict.fromkeys(weights, 0.1))
    assert all(weight.isfinite().all() for weight in weights.values())
    assert not regularizer.threshold(weights)["conv.weight"][2].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("strength", "rate"), [(0.0, 0.1), (1e30, 1e30), (1.0, 1e-4)])
def test_a_proximal_step_leaves_a_zero_group_zero(dtype, strength, rate):
    net = layer(dtype)
    weight = net[0].weight.data
    weight[1] = 0
    regularizer = GroupLassoRegularizer({"0.weight": (strength, "Filters")})
    regularizer.bind(net)
    regularizer.proximal({"0.weight": weight}, {"0.weight": rate})
    assert weight.isfinite().all()
    assert not weight[1].any()
    assert weight[0].any() == (strength < 2)


@pytest.mark.parametrize("dtype", HALF)
def test_group_variance_in_half_precision(dtype):
    """1 / variance^2, which its gradient has, is beyond 65504."""
    net = layer(dtype)
    value = penalty(GroupVarianceRegularizer({"0.weight": (1e-4, "Channels")}), net)
    value.backward()
    value = value.detach()
    double = net[0].weight.detach().double().requires_grad_()
    expected = 1e-4 / double.transpose(0, 1).flatten(1).norm(dim=1).var()
    expected.backward()
    assert float(value) == pytest.approx(expected.item(), rel=1e-3)
    assert torch.allclose(net[0].weight.grad.double(), double.grad, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("strengths", [{"weight": 1e-3}, {"weight": 1e-3, "bias": 2e-3}])
@pytest.mark.parametrize("make", [L1Regularizer, L2Regularizer])
def test_sums_of_many_half_precision_elements(make, strengths):
    """524288 ones are more than half precision can count."""
    net = nn.Linear(1024, 512).half()
    nn.init.ones_(net.weight)
    nn.init.zeros_(net.bias)
    assert penalty(make(strengths), net).item() == pytest.approx(524.288 / (2 if make is L2Regularizer else 1), 1e-3)


def test_small_strengths_of_half_precision_weights_count():
    """1e-8 is 0 in half precision."""
    value = penalty(GroupLassoRegularizer({"0.weight": (1e-8, "Filters")}), layer(torch.float16, 1.0)).detach()
    assert float(value) == pytest.approx(1e-8 * 6 * 6, 1e-3)
