"""What the end of a run says of thinning."""

import pytest
import torch
from torch import nn

from potstill.command.run.finish import removed
from potstill.thinning import thin


@pytest.fixture
def net():
    """Two convolutions, of which the second pads: a constant other than 0 between them cannot be moved."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1))


def test_nothing_is_dead(net):
    told = removed(thin(net, torch.randn(2, 3, 8, 8)))
    assert told == "thinning: no channel is dead, so there is nothing to remove"


def test_dead_channels_that_stay_are_told_where_no_other_goes(net):
    with torch.no_grad():
        net[0].weight[:2] = 0
        net[0].bias[:2] = 0.5
    first, second = removed(thin(net, torch.randn(2, 3, 8, 8))).splitlines()
    assert first == "thinning: no channel can be removed"
    assert second.startswith("not removed: 2 channels of ")
    assert "a constant other than 0 meets the zero padding of 2" in second
