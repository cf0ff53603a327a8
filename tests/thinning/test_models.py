"""Torchvision's classification models: 30 % of the removable channels of every class, exactly removed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from potstill.thinning import load, resize_to, save, thin, trace
from potstill.thinning.testing import make_sensitive, zero_channels

QUICK = {
    "resnet18": 5868242,
    "googlenet": 7057573,
    "mobilenet_v2": 2011066,
    "densenet121": 4234259,
    "shufflenet_v2_x0_5": 914407,
    "squeezenet1_1": 721768,
    "mnasnet0_5": 1381805,
}
"""The parameters that are left of each."""
ALL = torchvision.models.list_models(torchvision.models)
BIG = {"vit_h_14": 224}
SMALL_IMAGES = {"resnet18": 64, "googlenet": 64, "mobilenet_v2": 64, "densenet121": 64, "shufflenet_v2_x0_5": 64}


def build(name: str) -> nn.Module:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, **options)


def check(name: str, side: int, folder: Path) -> None:
    images = torch.randn(2, 3, side, side)
    model = make_sensitive(build(name), images)
    zeroed = zero_channels(model, trace(model, images[:1]))
    before = sum(parameter.numel() for parameter in model.parameters())
    with torch.no_grad():
        expected = model(images)
    recipe = thin(model, images[:1], validation_batch=images)
    after = sum(parameter.numel() for parameter in model.parameters())
    assert zeroed > 0
    assert after == QUICK.get(name, after) < 0.95 * before
    assert recipe.parameters == (before, after)
    with torch.no_grad():
        assert (model(images) - expected).abs().max() <= 1e-5 * expected.abs().max()
    again = load(build(name), save(model, recipe, folder / "thinned.safetensors")).eval()
    with torch.no_grad():
        assert torch.equal(again(images), model(images))
    bare = resize_to(build(name), model.state_dict())
    bare.load_state_dict(model.state_dict())
    trains(copy.deepcopy(model), images)


def trains(model: nn.Module, images: torch.Tensor) -> None:
    out = model.train()(images)
    parts = [out] if isinstance(out, torch.Tensor) else [part for part in out if part is not None]
    sum(part.square().mean() for part in parts).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", QUICK)
def test_quick(name: str, tmp_path: Path) -> None:
    check(name, SMALL_IMAGES.get(name, 96), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_all(name: str, tmp_path: Path) -> None:
    check(name, 299 if name == "inception_v3" else 224, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("fcn_resnet50", 11927489),
        ("deeplabv3_mobilenet_v3_large", 4011736),
        ("lraspp_mobilenet_v3_large", 1192906),
    ],
)
def test_segmentation(name: str, left: int, thinned) -> None:
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    assert thinned(model, torch.randn(2, 3, 64, 64)).parameters[1] == left


@pytest.mark.slow
def test_detection_backbone(thinned) -> None:
    backbone = torchvision.models.detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    assert thinned(backbone, torch.randn(2, 3, 64, 64)).parameters[1] == 5560858
