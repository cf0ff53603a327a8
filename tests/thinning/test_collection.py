"""Python's search for unreachable objects is as it was after a trace."""

import gc

import pytest
import torch
from torch import nn

from potstill.thinning import ThinningError, trace


class Asks(nn.Linear):
    """Notes the threshold while it runs."""

    seen = 0

    def forward(self, x):
        Asks.seen = gc.get_threshold()[0]
        return super().forward(x)


@pytest.fixture(params=[(700, 10, 10), (0, 5, 5), (200_000, 3, 3)])
def threshold(request):
    before = gc.get_threshold()
    gc.set_threshold(*request.param)
    yield request.param
    gc.set_threshold(*before)


def test_the_threshold_is_restored(threshold):
    trace(nn.Sequential(Asks(4, 6), nn.Linear(6, 2)), torch.randn(1, 4))
    assert gc.get_threshold() == threshold
    assert Asks.seen == {700: 100_000, 0: 0, 200_000: 200_000}[threshold[0]]


def test_the_threshold_is_restored_after_an_error(threshold):
    with pytest.raises(ThinningError):
        trace(nn.Linear(4, 6), torch.randn(1, 5))
    assert gc.get_threshold() == threshold
