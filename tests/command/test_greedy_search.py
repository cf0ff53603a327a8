"""One step of greedy pruning."""

import copy

import pytest
import torch
from torch import nn

from potstill.command.greedy.search import Tried, best_of, candidates, without
from potstill.models import create_model

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("resnet20_cifar").eval()


def test_what_a_residual_sum_ties_together_is_one_candidate(model):
    _, found = candidates(model, IMAGES, 0.25)
    names = [one.name.split(", ") for one in found]
    tied = ["layer2.0.conv2.weight", "layer2.0.downsample.0.weight", "layer2.1.conv2.weight", "layer2.2.conv2.weight"]
    assert sorted(next(n for n in names if "layer2.1.conv2.weight" in n)) == tied
    assert ["layer2.0.conv1.weight"] in names and len(names) == 12
    assert all("fc.weight" not in n for n in names)  # its outputs are the network's


def test_the_function_is_that_of_zeros(model):
    graph, found = candidates(model, IMAGES, 0.25)
    one = next(c for c in found if c.name == "layer3.1.conv1.weight")
    smaller, recipe = without(model, graph, one, IMAGES)
    gone = torch.isin(graph.channels_of(one.name, 0), one.channels).nonzero().flatten()
    assert smaller.layer3[1].conv1.out_channels == 48 and len(gone) == 16
    zeros = copy.deepcopy(model)
    for tensor in (zeros.layer3[1].conv1.weight, zeros.layer3[1].bn1.weight, zeros.layer3[1].bn1.bias):
        tensor.data[gone] = 0
    assert torch.allclose(smaller(IMAGES), zeros(IMAGES), atol=1e-5)
    assert recipe.macs[1] < recipe.macs[0]


def test_the_smallest_go(model):
    """A quarter of the filters, with their norms and all that reads them, is made a tenth of what it was."""
    names = ("conv1.weight", "bn1.weight", "bn1.bias")
    with torch.no_grad():
        for name in names:
            model.layer3[1].get_parameter(name)[::4] *= 0.1
        model.layer3[1].conv2.weight[:, ::4] *= 0.1
    graph, found = candidates(model, IMAGES, 0.25)
    one = next(c for c in found if c.name == "layer3.1.conv1.weight")
    gone = torch.isin(graph.channels_of(one.name, 0), one.channels).nonzero().flatten()
    assert gone.tolist() == list(range(0, 64, 4))


def test_one_channel_goes_at_least_and_one_stays():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1), nn.Flatten(), nn.Linear(1024, 5))
    for step in (0.01, 1.0):
        _, (one,) = candidates(model, IMAGES, step)
        assert one.name == "0.weight" and len(one.channels) == 1


def test_the_best_is_found_and_what_is_known_is_not_tried_again(model):
    _, found = candidates(model, IMAGES, 0.1)
    scores = {one.name: (50.0, 90.0, 1.0) for one in found}
    scores[found[3].name], scores[found[5].name] = (60.0, 90.0, 0.9), (60.0, 90.0, 0.8)
    calls = []

    def attempt(one):
        calls.append(one.name)
        return Tried(one.name, len(one.channels), *scores[one.name])

    known = [Tried(found[0].name, 1, 10.0, 20.0, 3.0)]
    assert best_of(found, known, attempt).name == found[5].name
    assert found[0].name not in calls and len(calls) == len(found) - 1
