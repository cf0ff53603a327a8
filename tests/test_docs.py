"""The code in the pages for extenders and for owners of training loops runs as it stands."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from potstill.compression import CompressionScheduler, PruningPolicy, ScheduleError, load_schedule
from potstill.compression.declare import registry as declared
from potstill.models import create_model, registry
from potstill.thinning import thin

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_extending(tmp_path, monkeypatch):
    for module, name in ((registry, "_infos"), (registry, "_factories")):  # other tests bring a network of this name
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
    classes = {section: dict(entries) for section, entries in declared._classes.items()}
    monkeypatch.setattr(declared, "_classes", classes)
    parts: dict = {}
    for code in blocks("extending.md", "python"):
        exec(code, parts)
    model = create_model("simplenet_cifar")
    assert load_schedule(yaml.safe_load(blocks("extending.md", "yaml")[0]), model).policies
    scheduler = CompressionScheduler(model)
    pruner = parts["DistanceFromMeanPruner"](["fc2.weight"], 0.3)
    scheduler.add_policy(PruningPolicy(pruner), epochs=[0])
    weight = model.fc2.weight.detach()
    nearest = (weight - weight.mean()).abs().flatten().argsort()[: int(0.3 * weight.numel())]
    scheduler.on_epoch_begin(0)
    assert bool((model.fc2.weight.flatten()[nearest] == 0).all())
    hoyer = parts["HoyerRegularizer"]({"fc2.weight": 2.0})
    hoyer.bind(model)
    expected = 2 * weight.abs().sum() ** 2 / weight.square().sum()
    assert torch.allclose(hoyer.loss(dict(model.named_parameters()), None), expected)
    tiny, images = create_model("tiny"), torch.randn(2, 1, 28, 28)
    parts["export_weights"](tiny, images, tmp_path / "tiny.safetensors", {"arch": "tiny"})
    torch.testing.assert_close(load_file(tmp_path / "tiny.safetensors"), dict(tiny.state_dict()))
    assert tiny(images).shape == (2, 10)
    band = {"class": "BandPruner", "weights": ["fc2.weight", "fc1.bias"], "low": 0.5, "high": 0.1}
    policies = [{"pruner": {"instance_name": "b"}, "epochs": [1]}]
    with pytest.raises(ScheduleError, match=r"high: 0.1 must not be below(?s:.*)is a vector(?s:.*)three times or more"):
        load_schedule({"pruners": {"b": band}, "policies": policies}, model)


@pytest.fixture
def loop(tmp_path, monkeypatch):
    """The names that the examples use."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schedule.yaml").write_text(
        "pruners:\n"
        "  f: {class: L1RankedStructureParameterPruner, desired_sparsity: 0.5, weights: [layer1.0.conv1.weight]}\n"
        "policies:\n  - {pruner: {instance_name: f}, epochs: [0]}\n"
    )
    model = create_model("resnet20_cifar")
    batches = [(torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4,))) for _ in range(2)]
    return {
        "torch": torch,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), 0.1, 0.9),
        "loader": batches,
        "epochs": 1,
        "criterion": nn.CrossEntropyLoss(),
        "validation_loss": 1.0,
        "top1": 50.0,
    }


def test_two_lines(loop):
    attach, _, in_python = blocks("training_loop.md", "python")
    exec(attach, loop)
    for images, labels in loop["loader"]:
        loop["optimizer"].zero_grad()
        loop["criterion"](loop["model"](images), labels).backward()
        loop["optimizer"].step()
        assert int((loop["model"].layer1[0].conv1.weight.flatten(1) == 0).all(1).sum()) == 8
    exec(in_python.replace("layer3.*.conv1", "layer2.*.conv1"), loop)


def test_loop_of_hooks(loop):
    attach, hooks, _ = blocks("training_loop.md", "python")
    exec(attach.rpartition("scheduler.attach")[0], loop)
    exec(hooks, loop)
    assert loop["recipe"].max_relative_difference <= 1e-5
    assert loop["model"].layer1[0].conv1.out_channels == 8


def test_rule_of_an_operation_of_ones_own():
    """The operation is registered, and its rule lets a dead channel through."""
    (code,) = (block for block in blocks("thinning.md", "python") if "custom_op" in block)
    exec(code, {})
    net = Doubled()
    with torch.no_grad():
        for tensor in net.first.parameters():
            tensor[2:4] = 0
    thin(net, torch.randn(2, 3, 9, 9))
    assert net.first.out_channels == 6


class Doubled(nn.Module):
    """Convolutions with the operation in between."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x):
        return self.second(torch.ops.mylib.double_it(self.first(x)))
