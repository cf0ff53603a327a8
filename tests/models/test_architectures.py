"""Sizes of the networks against published figures and closed formulas."""

import math
import re

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from potstill.models import create_model, model_info


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def multiply_adds(name: str) -> int:
    """Of the convolutions and Linears, for one image (the counter counts two per multiply-add)."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        create_model(name).eval()(torch.empty(1, *model_info(name).input_shape))
    return counter.get_total_flops() // 2


def weights(model: nn.Module) -> int:
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))


GOOGLENET_WIDTHS = """16;32,32;16,8;8 - 24;32,48;16,12;12 - pool - 24;32,48;16,12;12 - 16;32,48;16,16;16 -
    16;32,48;16,16;16 - 32;32,48;16,24;24 - pool - 32;48,64;16,16;16 - 32;48,64;16,16;16"""


def test_googlenet_has_the_published_number_of_parameters() -> None:
    def unit(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2 + 3 * outputs  # weight, bias, BatchNorm's weight and bias

    width, count = 64, unit(3, 64, 3)
    for block in re.split(r"\s-\s", GOOGLENET_WIDTHS):
        if block.strip() == "pool":
            continue
        one, (r3, three), (r5, five), pool = (
            tuple(map(int, part.split(","))) if "," in part else int(part) for part in block.split(";")
        )
        count += unit(width, one, 1) + unit(width, r3, 1) + unit(r3, three, 3)
        count += unit(width, r5, 1) + unit(r5, five, 5) + unit(width, pool, 1)
        width = one + three + five + pool
    assert count + 10 * width + 10 == 260_650
    assert parameters(create_model("googlenet_cifar")) == 260_650


def test_googlenet_names_and_sizes_of_a_block() -> None:
    model = create_model("googlenet_cifar")
    names = {name for name, _ in model.named_parameters()}
    blocks = [i for i in range(10) if i not in (2, 7)]
    expected = {"classifier.weight", "classifier.bias"}
    units = ["stem."]
    for i in blocks:
        branches = ("conv_1x1.", "conv_3x3.reduce_", "conv_3x3.", "conv_5x5.reduce_", "conv_5x5.", "max_pool.")
        units += [f"inception_blocks.{i}.{branch}" for branch in branches]
    expected |= {f"{unit}{layer}.{kind}" for unit in units for layer in ("conv", "bn") for kind in ("weight", "bias")}
    assert names == expected
    images = torch.rand(2, 3, 32, 32)
    sizes = [images.shape[2:]]
    x = model.stem(images)
    for block in model.inception_blocks:
        x = block(x)
        if x.shape[2:] != sizes[-1]:
            sizes.append(x.shape[2:])
    assert [tuple(s) for s in sizes] == [(32, 32), (16, 16), (8, 8)]
    assert x.shape[1] == 128


def test_googlenet_starts_with_kaiming_weights_for_relu() -> None:
    torch.manual_seed(0)
    model = create_model("googlenet_cifar")
    for name in ("inception_blocks.0.conv_3x3.conv", "inception_blocks.9.conv_3x3.conv"):
        layer = model.get_submodule(name)
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
        assert layer.bias.count_nonzero() == 0


@pytest.mark.parametrize(
    ("name", "expected"), [("resnet20_cifar", 270_896), ("simplenet_cifar", 61_770), ("mlp", 14_064), ("symmetry", 14)]
)
def test_number_of_weights(name: str, expected: int) -> None:
    assert weights(create_model(name)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet20_cifar", 40_813_184),
        ("resnet56_cifar", 125_747_840),
        ("simplenet_cifar", 651_720),
        ("mobilenet", 568_740_352),
        ("plain20_cifar", 40_551_040),
    ],
)
def test_multiply_adds(name: str, expected: int) -> None:
    assert multiply_adds(name) == expected


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_cifar_resnets_follow_the_formula(depth: int) -> None:
    n = (depth - 2) // 6
    convolutions = 27 * 16 + 2 * n * 9 * 16**2
    for inputs, outputs in ((16, 32), (32, 64)):
        convolutions += 9 * inputs * outputs + (2 * n - 1) * 9 * outputs**2 + inputs * outputs
    norms = 2 * (16 + 2 * n * (16 + 32 + 64) + 32 + 64)
    assert parameters(create_model(f"resnet{depth}_cifar")) == convolutions + norms + 650


def test_plain20_is_resnet20_without_the_shortcuts() -> None:
    plain, residual = create_model("plain20_cifar"), create_model("resnet20_cifar")
    shortcuts = sum(p.numel() for name, p in residual.named_parameters() if "downsample" in name)
    assert parameters(plain) == parameters(residual) - shortcuts
    assert set(plain.state_dict()) == {name for name in residual.state_dict() if "downsample" not in name}


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19", "vgg16_bn"])
def test_vgg_convolutions_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = create_model(f"{name}_cifar"), torchvision.models.get_model(name)
    shapes = {key: value.shape for key, value in ours.features.state_dict().items()}
    assert shapes == {key: value.shape for key, value in theirs.features.state_dict().items()}


def test_resnext_is_torchvisions_under_other_names() -> None:
    with torch.device("meta"):
        ours = create_model("resnext101_32x4d")
        bottleneck = torchvision.models.resnet.Bottleneck
        theirs = torchvision.models.ResNet(bottleneck, [3, 4, 23, 3], groups=32, width_per_group=4)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


def test_residual_networks_with_silent_branches_are_their_shortcuts() -> None:
    """With BatchNorm's scale at zero in every branch, the features are the stem's, pooled and padded or projected."""
    model = create_model("preact_resnet20_cifar").eval()
    for name, module in model.named_modules():
        if name.endswith("conv2"):
            nn.init.zeros_(module.weight)
    images = torch.rand(2, 3, 32, 32)
    features = model.layer3(model.layer2(model.layer1(model.conv1(images))))
    stem = nn.functional.avg_pool2d(model.conv1(images), 4)
    expected = torch.zeros(2, 64, 8, 8)
    expected[:, 24:40] = stem
    torch.testing.assert_close(features, expected)


def test_lab_networks_have_the_labs_layers() -> None:
    plain = [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in create_model("mlp").layers] == plain
    kinds = [type(layer).__name__ for layer in create_model("mlp_bn_drop").layers]
    assert " ".join(kinds) == (
        "Flatten Linear ReLU BatchNorm1d Linear ReLU Dropout BatchNorm1d Linear ReLU BatchNorm1d Linear"
    )
    assert [m.p for m in create_model("mlp_bn_drop").modules() if isinstance(m, nn.Dropout)] == [0.2]
    assert [type(x).__name__ for x in create_model("mlp_bn").layers] == [k for k in kinds if k != "Dropout"]


def test_symmetry_network_computes_the_papers_units() -> None:
    model = create_model("symmetry")
    with torch.no_grad():
        model.hidden.weight.copy_(torch.tensor([[1.0, 2, 4, -4, -2, -1], [-1.0, -2, -4, 4, 2, 1]]))
        model.hidden.bias.fill_(-1)
        model.output.weight.fill_(-10)
        model.output.bias.fill_(6)
    bits = torch.tensor([[1.0, 0, 1, 1, 0, 1], [1.0, 0, 0, 0, 0, 0]])
    symmetric, other = model(bits.view(2, 6, 1, 1)).flatten().tolist()

    def unit(z: float) -> float:
        return 1 / (1 + math.exp(-z))

    assert symmetric == pytest.approx(unit(6 - 20 * unit(-1)))
    assert other == pytest.approx(unit(6 - 10 * unit(0) - 10 * unit(-2)))
    assert all(p.abs().max() <= 0.3 for p in create_model("symmetry").parameters())
