"""Weight norms: their directions must not become zero, their lengths may."""

import pytest
import torch
from torch import nn
from torch.nn.utils import weight_norm as older
from torch.nn.utils.parametrizations import weight_norm

from potstill.compression.declare.cross_checks import Shapes
from potstill.compression.parts.structures import GROUPS, find_group
from potstill.compression.parts.weight_norm import direction_problem, lengths_of
from potstill.compression.pruners import L1RankedStructureParameterPruner, StructureParameterPruner
from potstill.compression.regularizers import GroupLassoRegularizer
from potstill.compression.schedule import dict_config
from potstill.compression.sensitivity import prunable_weights

from .told import of_instance, of_policy

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
NEW, OLD = "conv.parametrizations.weight.original", "conv.weight_"


def net(norm, layer=None, **more) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential()
    model.conv = norm(layer or nn.Conv2d(3, 4, 3), **more)
    model.last = nn.Conv2d(4, 2, 1)
    return model


def refused(model: nn.Module, name: str) -> list[str]:
    """The groups of a weight that must not become zero."""
    shapes = Shapes(model)
    fitting = [name_ for name_, group in GROUPS.items() if group.min_rank <= len(shapes[name])]
    return [which for which in fitting if direction_problem(GROUPS[which], name, shapes)]


@pytest.mark.parametrize(("norm", "v", "g"), [(weight_norm, f"{NEW}1", f"{NEW}0"), (older, f"{OLD}v", f"{OLD}g")])
def test_directions_know_their_lengths(norm, v, g):
    model = net(norm)
    assert lengths_of(v, model) == g
    assert [lengths_of(name, model) for name in (g, "conv.bias", "last.weight")] == [None] * 3
    assert refused(model, v) == ["3D", "Filters", "Cols", "4D"]
    assert refused(model, g) == refused(model, "last.weight") == []
    assert refused(net(norm, nn.Conv2d(1, 4, 3)), v) == list(GROUPS)
    assert refused(net(norm, nn.Linear(3, 4), dim=1), v) == ["Channels", "Rows", "4D"]
    assert refused(net(norm, nn.Linear(3, 4), dim=None), v) == ["4D"]
    assert direction_problem(find_group("Blocks", {"block_shape": [2, 3, 3, 3]}), v, Shapes(model))
    assert not direction_problem(find_group("Blocks", {"block_shape": [2, 3, 1, 3]}), v, Shapes(model))


def test_transposed_convolutions_lie_the_other_way_round():
    assert refused(net(older, nn.ConvTranspose2d(3, 4, 2)), f"{OLD}v") == ["Channels", "Rows", "4D"]


def test_names_that_only_look_like_it_are_none():
    model = nn.Module()
    model.weight_v, model.weight_g = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4, 1))
    assert lengths_of("weight_v", model) is None


@pytest.mark.parametrize(("norm", "v", "g"), [(weight_norm, f"{NEW}1", f"{NEW}0"), (older, f"{OLD}v", f"{OLD}g")])
def test_schedules_that_would_zero_directions_are_refused(norm, v, g):
    model = net(norm)
    message = f"{v} has the directions of a weight norm, and a direction of zeros is 0 / 0: name the lengths, {g}"
    ranked = {"class": "L1RankedStructureParameterPruner", "desired_sparsity": 0.5, "weights": [v]}
    assert of_instance(ranked, model=model) == [f"weights[0]: {message}"]
    regims = {v: [0.1, "Filters"]}
    assert of_instance({"class": "StructureParameterPruner", "reg_regims": regims}, model=model) == [
        f"reg_regims.{v}: {message}"
    ]
    lasso = {"class": "GroupLassoRegularizer", "reg_regims": regims}
    assert of_instance(lasso | {"threshold_criteria": "Max"}, "regularizers", model) == [f"reg_regims.{v}: {message}"]
    assert of_policy(lasso, {"mode": "proximal"}, "regularizers", model) == [f"args.mode: {message}"]
    assert of_policy(lasso, {}, "regularizers", model) == of_instance(ranked | {"weights": [g]}, model=model) == []


def test_constructed_by_hand_they_are_refused_too():
    for part in (
        L1RankedStructureParameterPruner(0.5, [f"{NEW}1"]),
        StructureParameterPruner({f"{NEW}1": (0.1, "Filters")}),
        GroupLassoRegularizer({f"{NEW}1": (0.1, "Filters")}, "Max"),
    ):
        with pytest.raises(ValueError, match=f"name the lengths, {NEW}0"):
            part.bind(net(weight_norm))


def test_sensitivity_leaves_them_out():
    assert prunable_weights(net(older), "filter") == [f"{OLD}g", "last.weight"]
    assert f"{OLD}v" in prunable_weights(net(older), "channel")


@pytest.mark.parametrize(("norm", "g"), [(weight_norm, f"{NEW}0"), (older, f"{OLD}g")])
def test_pruning_the_lengths_prunes_the_filters(norm, g):
    model = net(norm)
    pruner = {"class": "L1RankedStructureParameterPruner", "desired_sparsity": 0.5, "weights": [g]}
    policies = [{"pruner": {"instance_name": "p"}, "epochs": [0]}]
    images = torch.randn(2, 3, 5, 5)
    scheduler = dict_config(model, None, {"pruners": {"p": pruner}, "policies": policies}, example_inputs=images)
    scheduler.on_epoch_begin(0)
    model(images).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert [bool(row.any()) for row in model.conv(images).transpose(0, 1)].count(False) == 2
