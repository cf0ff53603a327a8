"""States of schedules in checkpoints of other frameworks, which anybody may have written: no framework is needed."""

import copy

import pytest
import torch
from torch import nn

from potstill.compression import CheckpointError
from potstill.integrations.driver import Driver
from potstill.thinning import thin

AGP = {
    "pruners": {"agp": {"class": "SparsityLevelParameterPruner", "levels": {"first.weight": 0.5}}},
    "policies": [{"pruner": {"instance_name": "agp"}, "epochs": [0, 1]}],
}
X = torch.linspace(-1, 1, 16).reshape(2, 8)


class Own(nn.Module):
    """A network that keeps a size of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.width = nn.Linear(8, 8), nn.Linear(8, 3), 8

    def forward(self, x):
        return self.last(self.first(x).view(-1, self.width))


def driven(state=None, steps=0):
    torch.manual_seed(0)
    model, driver = Own(), Driver(AGP, X)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    driver.build(model, optimizer)
    driver.load_state_dict(state or {})
    driver.start(optimizer, 2, steps)
    return driver


@pytest.fixture
def state():
    """One of a thinned network: its recipe changes `width`."""
    driver = driven()
    model = Own()
    with torch.no_grad():
        model.first.weight[:2], model.first.bias[:2] = 0, 0
    text = thin(model, X).to_json()
    assert model.width == 6
    return {**driver.state_dict(), "recipes": text}


def with_recipe(state, change=lambda text: text):
    return {"ended": state["ended"], "scheduler": {**state["scheduler"], "recipes": [change(state["recipes"])]}}


def test_sizes_follow_a_sound_state(state):
    driver, model = Driver(AGP, X), Own()
    driver.load_state_dict(with_recipe(state))
    driver.follow_sizes(model)
    assert model.width == 6
    thinned = Own()
    driver.thin_as(with_recipe(state), thinned)
    assert thinned.first.out_features == 6


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"name": "width"', '"name": "training"', "no integer"),
        ('"name": "width"', '"name": "_modules"', "recipe|attribute"),
        ('"new": 6', '"new": 3000', "cannot become 3000"),
        ('"new": 6', '"new": 0', "cannot become 0|recipe"),
        ('"module": ""', '"module": "nowhere"', "nowhere"),
    ],
)
def test_attributes_of_a_state_are_sizes_that_become_less(state, old, new, match):
    model, driver = Own(), Driver(AGP, X)
    before = dict(vars(model))
    assert old in state["recipes"].replace(": ", ": ")
    driver.load_state_dict(with_recipe(state, lambda text: text.replace(old, new)))
    with pytest.raises((CheckpointError), match=match) as caught:
        driver.follow_sizes(model)
    assert "\n" not in str(caught.value)
    assert model.width == 8 and model.training == before["training"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.pop("scheduler"),
        lambda state: state.pop("ended"),
        lambda state: state.update(ended="x"),
        lambda state: state.update(ended=10**400),
        lambda state: state.update(scheduler=[]),
        lambda state: state["scheduler"].update(masks=3),
        lambda state: state["scheduler"].update(recipes=["{}"]),
        lambda state: state["scheduler"].update(recipes={"a": 1}),
    ],
)
def test_a_damaged_state_is_one_kind_of_error(spoil):
    state = copy.deepcopy(driven().state_dict())
    spoil(state)
    with pytest.raises(CheckpointError) as caught:
        driven(state, steps=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("state", [{"scheduler": 3}, {"scheduler": {"recipes": [3]}}, {"scheduler": {}}, [1], "x"])
def test_what_is_no_state_thins_nothing(state):
    with pytest.raises(CheckpointError):
        Driver(AGP, X).thin_as(state, Own())
