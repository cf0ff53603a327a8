"""Of each weight, pruners of structures hide what was asked and never more; of fewer, a warning tells."""

import logging
import math
import re
from collections.abc import Iterable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from potstill.compression import dict_config
from potstill.compression.parts.selection import Share, keep_whole_sets
from potstill.compression.sensitivity import sensitivity_analysis

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
LEVELS = st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.3, 0.5, 0.7, 0.9, 1.0])
PRUNERS = ("L1RankedStructureParameterPruner", "L2RankedStructureParameterPruner", "RandomRankedFilterPruner")


class Residual(nn.Module):
    """x + (1x1 convolution, depthwise, 1x1 convolution) of x."""

    def __init__(self, width):
        super().__init__()
        self.expand, self.norm = nn.Conv2d(width, 2 * width, 1), nn.BatchNorm2d(2 * width)
        self.depth = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.project = nn.Conv2d(2 * width, width, 1)

    def forward(self, x):
        return x + self.project(self.depth(self.norm(self.expand(x)).relu()).relu())


class Shuffled(nn.Module):
    """Interleaves two halves of the channels."""

    def forward(self, x):
        return x.unflatten(1, (2, x.shape[1] // 2)).transpose(1, 2).flatten(1, 2)


def halves(width):
    return nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.GLU(1))


def pixels(width):
    return nn.Sequential(nn.Conv2d(width, 4 * width, 1), nn.PixelShuffle(2), nn.AvgPool2d(2))


BLOCKS = {
    "conv": lambda width: nn.Conv2d(width, width, 3, padding=1),
    "batch norm": nn.BatchNorm2d,
    "group norm": lambda width: nn.GroupNorm(4, width),
    "grouped": lambda width: nn.Conv2d(width, width, 3, padding=1, groups=2),
    "depthwise": lambda width: nn.Conv2d(width, width, 3, padding=1, groups=width),
    "multiplier": lambda width: nn.Sequential(
        nn.Conv2d(width, 2 * width, 1, groups=width), nn.Conv2d(2 * width, width, 1)
    ),
    "residual": Residual,
    "relu": lambda width: nn.ReLU(),
    "glu": halves,
    "pixels": pixels,
    "shuffle": lambda width: Shuffled(),
    "transposed": lambda width: nn.ConvTranspose2d(width, width, 1, groups=2),
}


@st.composite
def networks(draw):
    """A stem, up to five blocks, a head."""
    width = draw(st.sampled_from([8, 16]))
    blocks = [BLOCKS[name](width) for name in draw(st.lists(st.sampled_from(sorted(BLOCKS)), max_size=5))]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)]
    return nn.Sequential(nn.Conv2d(3, width, 3), *blocks, *tail)


def filters_of(model: nn.Module, name: str) -> torch.Tensor:
    """Which filters of a weight are all zero."""
    owner, weight = model.get_submodule(name.rpartition(".")[0]), model.get_parameter(name).detach()
    if isinstance(owner, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)
    return (weight.flatten(1) == 0).all(1)


def prune(model, names: Iterable[str], level, inputs, cls=PRUNERS[0], group="Filters", traced=True, **more):
    """One ranking, without training; gives the scheduler."""
    rate = (
        {"initial_sparsity": level / 2, "final_sparsity": level} if cls.endswith("AGP") else {"desired_sparsity": level}
    )
    instance = {"class": cls, "group_type": group, "weights": list(names), **rate, **more}
    policies = [{"pruner": {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": 3}]
    schedule = {"version": 1, "pruners": {"p": instance}, "policies": policies}
    scheduler = dict_config(model, None, schedule, example_inputs=inputs if traced else None)
    scheduler.on_epoch_begin(0, None, 1)
    return scheduler


@pytest.fixture
def texts(caplog):
    caplog.set_level(logging.WARNING, "potstill")
    return caplog


@SETTINGS
@given(networks(), st.data(), LEVELS, st.sampled_from(PRUNERS), st.booleans(), st.booleans())
def test_hidden_is_asked_or_told(texts, model, data, level, cls, coupled, traced):
    torch.manual_seed(0)
    texts.clear()
    convolutions = [f"{n}.weight" for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    names = data.draw(st.lists(st.sampled_from(convolutions), min_size=1, unique=True))
    coupled &= traced and not cls.startswith("Random")
    prune(model, names, level, torch.zeros(1, 3, 10, 10), cls, "Coupled" if coupled else "Filters", traced)
    for name in names:
        dead = filters_of(model, name)
        asked = math.floor(level * len(dead) + 1e-9)
        assert dead.sum() <= asked
        told = [text for text in texts.messages if name in text and "asked" in text]
        assert dead.sum() == asked or told, name


def test_widths_of_residual_blocks_stay_apart_and_exact():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), Residual(8), Residual(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    names = ["0.weight", "1.project.weight", "2.project.weight"]
    torch.manual_seed(0)
    prune(model, names, 0.5, torch.zeros(1, 3, 8, 8))
    for name in names:
        norms = model.get_parameter(name).detach().flatten(1).abs().sum(1)
        assert int((norms == 0).sum()) == 4


def test_layers_of_the_same_channels_are_one_ranking():
    torch.manual_seed(0)
    model = nn.Sequential(Residual(8), nn.Conv2d(8, 2, 1))
    prune(model, ["0.expand.weight", "0.depth.weight"], 0.25, torch.zeros(1, 8, 6, 6))
    dead = filters_of(model, "0.expand.weight")
    assert int(dead.sum()) == 4
    assert torch.equal(dead, filters_of(model, "0.depth.weight"))


def grouped():
    """Filters 0 and 4, 1 and 5, ... of the first layer are the same channel."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1, groups=2), nn.Conv2d(4, 2, 1))


def test_a_set_is_ranked_by_the_mean_of_its_members():
    model = grouped()
    with torch.no_grad():  # the smallest filter is 0, the smallest pair 1 and 5
        model[0].weight[:] = torch.tensor([1.0, 3, 9, 9, 8, 3, 9, 9]).view(8, 1, 1, 1)
    prune(model, ["0.weight"], 0.3, torch.zeros(1, 3, 4, 4))
    assert filters_of(model, "0.weight").nonzero().flatten().tolist() == [1, 5]
    assert model[1].bias.nonzero().flatten().tolist() == []
    assert (model[1].weight == 0).nonzero().flatten().tolist() == [1, 5]


def test_what_does_not_fit_is_told_once_with_counts_and_sizes(texts):
    model = grouped()
    scheduler = prune(model, ["0.weight"], 0.4, torch.zeros(1, 3, 4, 4))
    scheduler.on_epoch_begin(1, None, 1)
    scheduler.finish()
    found = [text for text in texts.messages if "asked" in text and "hidden:" in text]
    assert found == ["p: 0.weight: 3 of 8 structures asked, 2 hidden: they live or die in sets of 2"]
    outcome = scheduler.policies[0].outcomes["0.weight"]
    assert (outcome.structures, outcome.asked, outcome.hidden, outcome.short, outcome.sets) == (8, 3, 2, 1, {2: 4})


def test_the_fraction_follows_the_curve():
    model, counts = grouped(), []
    scheduler = prune(model, ["0.weight"], 0.5, torch.zeros(1, 3, 4, 4), "L1RankedStructureParameterPruner_AGP")
    for epoch in range(3):
        scheduler.on_epoch_begin(epoch, None, 1)
        counts.append(int(filters_of(model, "0.weight").sum()))
    assert counts == [2, 2, 4]  # of 2, 3 (0.25 + 0.25 x 0.875 of 8) and 4


def test_what_is_asked_is_known_before_training():
    scheduler = dict_config(
        grouped(),
        None,
        {
            "version": 1,
            "pruners": {
                "p": {"class": "ActivationAPoZRankedFilterPruner", "desired_sparsity": 0.4, "weights": ["0.weight"]}
            },
            "policies": [{"pruner": {"instance_name": "p"}, "epochs": [1]}],
        },
        example_inputs=torch.zeros(1, 3, 4, 4),
    )
    expected = scheduler.policies[0].expected()["0.weight"]
    assert (expected.asked, expected.hidden) == (3, 2)
    assert not scheduler.policies[0].outcomes


def test_a_leader_decides_by_whole_sets():
    model = nn.Sequential(*grouped()[:3], nn.Conv2d(4, 8, 1), *grouped()[1:3])
    prune(model, ["0.weight", "3.weight"], 0.4, torch.zeros(1, 3, 4, 4), group_dependency="Leader")
    dead = filters_of(model, "0.weight")
    assert int(dead.sum()) == 2
    assert torch.equal(dead[:4], dead[4:])
    assert torch.equal(dead, filters_of(model, "3.weight"))


def test_thresholds_take_whole_sets_only(texts):
    model = grouped()
    with torch.no_grad():
        model[0].weight[:] = torch.tensor([0.1, 0.1, 1, 1, 0.1, 1, 1, 1]).view(8, 1, 1, 1)
    schedule = {
        "version": 1,
        "pruners": {"p": {"class": "StructureParameterPruner", "reg_regims": {"0.weight": [0.5, "Filters"]}}},
        "policies": [{"pruner": {"instance_name": "p"}, "epochs": [0]}],
    }
    dict_config(model, None, schedule, example_inputs=torch.zeros(1, 3, 4, 4)).on_epoch_begin(0, None, 1)
    assert filters_of(model, "0.weight").nonzero().flatten().tolist() == [0, 4]
    assert any(re.search("0.weight: 3 of 8 structures asked, 2 hidden", text) for text in texts.messages)


def test_sensitivity_analysis_hides_what_was_asked():
    model = grouped()
    found = sensitivity_analysis(
        model, lambda m: int(filters_of(m, "0.weight").sum()), "0.weight", [0.1, 0.3, 0.5, 1.0], "filter",
        torch.zeros(1, 3, 4, 4),
    )  # fmt: skip
    assert [point.scores for point in found] == [0, 2, 4, 8]


def test_whole_sets_that_fit():
    sets = torch.tensor([0, 0, 0, 1, 2, 2])
    kept = keep_whole_sets(torch.tensor([0.1, 0.3, 0.2]), [Share(sets, 3)])
    assert kept[0].tolist() == [False] * 3 + [True] * 3
    kept = keep_whole_sets(torch.tensor([0.1, 0.3, 0.2]), [Share(sets, 2)])  # the first is passed over
    assert kept[0].tolist() == [True] * 4 + [False] * 2
    other = Share(torch.tensor([2, 3]), 0)
    kept = keep_whole_sets(torch.tensor([0.3, 0.3, 0.2, 9]), [Share(sets, 2), other])  # the other weight gives none
    assert kept[0].tolist() == [True] * 3 + [False] + [True] * 2
    dead = torch.tensor([False, True, True, True, True, True])
    kept = keep_whole_sets(torch.tensor([0.3, 0.1, 0.2]), [Share(sets, 1, dead)])
    assert kept[0].tolist() == [False] + [True] * 5
