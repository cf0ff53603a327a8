"""Widths that no network is designed with: thinned networks train on in either memory layout.

A crash in a kernel ends the whole test run, which is what these are for (docs/reliability.md, odd widths).
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from potstill.thinning import thin


def narrowed(stride, dead):
    """A network whose 1x1 convolution with a stride has lost `dead` of its 8 inputs."""
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    down = nn.Sequential(nn.Conv2d(8, 16, 1, stride=stride, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    model = nn.Sequential(body, down, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    model = model.to(memory_format=torch.channels_last)
    with torch.no_grad():
        for parameter in [body[0].weight, body[1].weight, body[1].bias]:
            parameter[:dead] = 0
    thin(model, torch.randn(2, 3, 16, 16))
    assert model[1][0].weight.shape == (16, 8 - dead, 1, 1)
    return model


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dead", [1, 3, 5])
def test_either_layout_trains_alike_on_one_thread(stride, dead):
    model = narrowed(stride, dead)
    other = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    x = torch.randn(4, 3, 16, 16)
    for layout, one in ((torch.channels_last, model), (torch.contiguous_format, other)):
        optimizer = torch.optim.SGD(one.train().parameters(), 0.01)
        for _ in range(3):
            optimizer.zero_grad()
            one(x.to(memory_format=layout)).square().sum().backward()
            optimizer.step()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
