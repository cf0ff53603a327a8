"""Networks of our own, thinned: equal to the masked ones, with random BatchNorm statistics and affine parameters."""

import copy

import pytest
import torch
from torch import nn

from potstill.models import create_model
from potstill.thinning import resize_to, thin, trace
from potstill.thinning.testing import zero_channels

NAMES = ("googlenet_cifar", "resnet20_cifar", "vgg11_bn_cifar", "preact_resnet20_cifar", "mobilenet", "simplenet_cifar")


@pytest.mark.parametrize("name", NAMES)
def test_thinned_equals_masked(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=10).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.5)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    side = 64 if name == "mobilenet" else 32
    images = torch.randn(4, 3, side, side)
    assert zero_channels(model, trace(model, images)) > 0
    masked = copy.deepcopy(model)
    recipe = thin(model, images)
    with torch.no_grad():
        expected, found = masked(images), model(images)
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5
    assert sum(p.numel() for p in model.parameters()) < 0.8 * sum(p.numel() for p in masked.parameters())
    assert recipe.max_relative_difference <= 1e-5
    bare = create_model(name, num_classes=10).eval()
    resize_to(bare, model.state_dict())
    bare.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(bare(images), found)
