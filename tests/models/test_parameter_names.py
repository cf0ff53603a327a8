"""Distiller's schedules name parameters: each network here must have them."""

import json
from pathlib import Path

import pytest
import torch

from potstill.models import create_model

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "distiller-names.json"


def residual(depths: tuple[int, ...], layers: tuple[str, ...], first_shortcut: int) -> set[str]:
    blocks = [f"layer{stage}.{block}" for stage, depth in enumerate(depths, 1) for block in range(depth)]
    shortcuts = [f"layer{stage}.0.downsample.0" for stage in range(first_shortcut, len(depths) + 1)]
    return {f"{block}.{layer}.weight" for block in blocks for layer in layers} | {f"{s}.weight" for s in shortcuts}


def numbered(prefix: str, numbers: str) -> set[str]:
    return {f"{prefix}.{number}.weight" for number in numbers.split()}


def resnext() -> set[str]:
    names = {"last_linear.weight"}
    for stage, depth in enumerate((3, 4, 23, 3), 4):
        names.add(f"features.{stage}.0.0.1.0.weight")
        for block in range(depth):
            names |= {f"features.{stage}.{block}.0.0.{layer}.weight" for layer in ("0.0", "0.3", "1")}
    return names


USED = {
    "alexnet": numbered("features", "0 3 6 8 10") | numbered("classifier", "1 4 6"),
    "alexnet_bn": numbered("features", "0 2 6 10 13") | numbered("classifier", "0 3 6"),
    "mobilenet": {f"model.{block}.3.weight" for block in range(1, 14)} | {"fc.weight"},
    "plain20_cifar": residual((3, 3, 3), ("conv1", "conv2"), 9) | {"conv1.weight"},
    "preact_resnet18": residual((2, 2, 2, 2), ("conv1", "conv2"), 9) | {"conv1.weight", "fc.weight"},
    "preact_resnet20_cifar": residual((3, 3, 3), ("conv1", "conv2"), 9) | {"conv1.weight", "fc.weight"},
    "resnet18": residual((2, 2, 2, 2), ("conv1", "conv2"), 2),
    "resnet20_cifar": residual((3, 3, 3), ("conv1", "conv2", "bn2"), 2) | {"fc.weight"},
    "resnet50": residual((3, 4, 6, 3), ("conv1", "conv2", "conv3"), 1) | {"fc.weight"},
    "resnet56_cifar": residual((9, 9, 9), ("conv1", "conv2"), 2),
    "resnext101_32x4d": resnext(),
    "vgg16_cifar": numbered("features", "0 2 5 7 10 12 14 17 19 21 24 26 28"),
    "vgg19": numbered("features", "2 5 7 10 12 14 16 19 21 23 25 28 30 32 34"),
}


def parameter_names(arch: str) -> set[str]:
    with torch.device("meta"):
        return {name for name, _ in create_model(arch).named_parameters()}


@pytest.mark.parametrize("arch", sorted(USED))
def test_network_has_the_names_that_distillers_schedules_use(arch: str) -> None:
    missing = USED[arch] - parameter_names(arch)
    assert not missing


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference list does not lie beside the checkout")
def test_the_reference_list_agrees() -> None:
    for arch, entry in json.loads(REFERENCE.read_text()).items():
        assert arch in USED, arch
        missing = set(entry["parameters"]) - parameter_names(arch)
        assert not missing, arch


def test_quantizer_overrides_find_their_modules() -> None:
    """Distiller's quantization schedules name modules, activations among them."""
    with torch.device("meta"):
        for arch, modules in {
            "alexnet_bn": ("features.0", "features.1", "classifier.5", "classifier.6"),
            "preact_resnet18": ("conv1", "relu1", "final_relu", "fc"),
            "preact_resnet20_cifar": ("conv1", "layer1.0.pre_relu", "final_relu", "fc"),
        }.items():
            known = dict(create_model(arch).named_modules())
            assert set(modules) <= set(known), arch
