"""Compiled models: what hooks into modules is refused, what hooks into the model itself acts, with the same draws."""

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, RegularizationPolicy, Window
from potstill.compression.parts.compiled_models import is_compiled
from potstill.compression.pruners import ActivationAPoZRankedFilterPruner, FMReconstructionChannelPruner
from potstill.compression.regularizers import L0Regularizer

from .told import of_instance

REFUSED = "hooks into modules, which torch.compile leaves out: give the schedule the plain model and compile it later"


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))


def compiled() -> nn.Module:
    return torch.compile(net(), backend="eager")


def test_compiled_models_are_known():
    assert is_compiled(compiled())
    assert is_compiled(nn.Sequential(compiled()))
    inside = net()
    inside[0].compile(backend="eager")
    assert is_compiled(inside)
    assert not is_compiled(net())


@pytest.mark.parametrize(
    ("section", "definition"),
    [
        ("pruners", {"class": "ActivationAPoZRankedFilterPruner", "desired_sparsity": 0.5, "weights": ["0.weight"]}),
        ("pruners", {"class": "ActivationMeanRankedFilterPruner", "desired_sparsity": 0.5, "weights": ["0.weight"]}),
        ("pruners", {"class": "FMReconstructionChannelPruner", "desired_sparsity": 0.5, "weights": ["2.weight"]}),
        ("regularizers", {"class": "L0Regularizer", "weights": ["0.weight"], "strength": 1, "sampling": "example"}),
    ],
)
def test_hooks_into_modules_are_refused(section, definition):
    found = of_instance(definition, section, compiled())
    assert len(found) == 1
    assert found[0].endswith(f" {REFUSED}")
    assert of_instance(definition, section, net()) == []


def test_constructed_by_hand_they_are_refused_too():
    for pruner in (
        ActivationAPoZRankedFilterPruner(0.5, ["0.weight"]),
        FMReconstructionChannelPruner(0.5, ["0.weight"]),
    ):
        with pytest.raises(ValueError, match=f"{type(pruner).__name__} {REFUSED}"):
            pruner.bind(compiled())
    gates = RegularizationPolicy(L0Regularizer(["0.weight"], strength=1.0, sampling="example"))
    with pytest.raises(ValueError, match=f"L0Regularizer with sampling: example {REFUSED}"):
        CompressionScheduler(compiled(), torch.zeros(1, 3, 5, 5)).add_policy(gates, Window.at([0]))


def test_gates_act_and_are_drawn_as_without_compilation():
    """Also when they come after the first, compiled, forward pass."""
    outputs = []
    for model in (net(), compiled()):
        scheduler = CompressionScheduler(model, torch.zeros(1, 3, 5, 5))
        gates = L0Regularizer(["0.weight"], strength=1.0)
        scheduler.add_policy(RegularizationPolicy(gates), Window.between(1, 3))
        images = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))
        model(images)
        torch.manual_seed(2)
        scheduler.on_epoch_begin(1)
        scheduler.on_minibatch_begin(1, 0, 1)
        outputs.append(model(images).detach())
    assert torch.allclose(*outputs, atol=1e-6)
    assert not torch.allclose(outputs[0], net()(images), atol=1e-2)
