"""Sizes that a model reads from a configuration: a dict or an object that its modules share."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from potstill.thinning import Recipe, ThinningError, load, save, thin

X = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Frozen:
    heads: int


class Mirrored(dict[str, Any]):
    """Its entries can be read as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


KINDS: dict[str, Callable[..., Any]] = {
    "dict": dict,
    "namespace": SimpleNamespace,
    "frozen": Frozen,
    "mirrored": Mirrored,
    "nested": lambda heads: {"text": SimpleNamespace(heads=heads)},
}


def entry(config: Any) -> int:
    if type(config) is dict:
        return config["text"].heads if "text" in config else config["heads"]
    return config.heads


class Attention(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, heads = config, entry(config)
        self.qkv, self.out = nn.Linear(6, 3 * heads * 4), nn.Linear(heads * 4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(x).view(*x.shape[:2], 3, entry(self.config), 4).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        return x + self.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))


class Two(nn.Module):
    """Two layers that hold one configuration."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.config = KINDS[kind](heads=3)
        self.first, self.second = Attention(self.config), Attention(self.config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


@torch.no_grad()
def masked(kind: str) -> Two:
    """Return a network whose first layer has a dead head: what it makes of the values is 0."""
    torch.manual_seed(0)
    model = Two(kind).eval()
    model.first.qkv.weight[28:32], model.first.qkv.bias[28:32] = 0, 0
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_loses_heads_alone(kind: str, tmp_path: Path) -> None:
    model = masked(kind)
    before = copy.deepcopy(model)(X)
    recipe = thin(model, X)
    assert (len(model.first.qkv.weight), len(model.second.qkv.weight)) == (24, 36)
    assert [entry(module.config) for module in (model, model.first, model.second)] == [3, 2, 3]
    assert [(change.module, change.name) for change in recipe.attributes] == [
        ("first", "config.text.heads" if kind == "nested" else "config.heads")
    ]
    again = masked(kind)
    Recipe.from_json(recipe.to_json()).apply(again)
    path = save(model, recipe, tmp_path / "small.safetensors")
    spec = importlib.util.spec_from_file_location("small", tmp_path / "small.py")
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    for found in (model, again, load(Two(kind), path), alone.load(Two(kind))):
        torch.testing.assert_close(found(X), before)
        assert [entry(module.config) for module in (found, found.first, found.second)] == [3, 2, 3]


def test_a_failed_removal_gives_the_configuration_back() -> None:
    model = masked("namespace")
    config, text = model.config, thin(masked("namespace"), X).to_json()
    data = json.loads(text)
    data["attributes"].append({**data["attributes"][0], "name": "config.width"})
    with pytest.raises(ThinningError, match="config.width"):
        Recipe.from_json(json.dumps(data)).apply(model)
    assert model.first.config is config and config.heads == 3


@pytest.mark.parametrize(("name", "problem"), [
    ("config.width", "is no integer"),
    ("config.training", "is no integer"),
    ("training.real", "is no integer"),
    ("qkv.out_features", "is no integer"),
    ("__dict__.config", "the name of an attribute"),
    ("config.heads.real", "is no integer"),
    ("config..heads", "the name of an attribute"),
])  # fmt: skip
def test_a_recipe_changes_no_other_entries(name: str, problem: str) -> None:
    data = json.loads(thin(masked("dict"), X).to_json())
    data["attributes"][0]["name"] = name
    model = masked("dict")
    with pytest.raises(ThinningError, match=problem):
        Recipe.from_json(json.dumps(data)).apply(model)
    assert len(model.first.qkv.weight) == 36
