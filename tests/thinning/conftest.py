"""One check for every kind of model: dead channels go, and the outputs stay."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from potstill.thinning import Recipe, thin, trace
from potstill.thinning.running.inputs import run, tensors_of
from potstill.thinning.testing import make_sensitive, zero_channels
from potstill.thinning.tracing import tracer


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # small tensors: threads only get in each other's way


@pytest.fixture(autouse=True)
def _rules_may_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in a rule, which freezes channels for users, is an error of the test."""
    monkeypatch.setattr(tracer, "FREEZES_ON_ERROR", False)


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture
def thinned() -> Callable[..., Recipe]:
    """Zero 40 % of all removable channels, thin, and compare with the masked model on fresh inputs by hand."""

    def check(model: nn.Module, inputs: Any, least: float = 0.01, fraction: float = 0.4) -> Recipe:
        make_sensitive(model, inputs)
        zero_channels(model, trace(model, inputs), fraction)
        masked, before = copy.deepcopy(model), size(model)
        recipe = thin(model, inputs)
        assert size(model) <= before * (1 - least)
        with torch.no_grad():
            for mine, other in zip(tensors_of(run(masked, inputs)), tensors_of(run(model, inputs)), strict=True):
                assert (mine - other).abs().max() <= 1e-5 * mine.abs().max()
        sum(tensor.double().sum() for tensor in tensors_of(run(model.train(), inputs))).backward()
        return recipe

    return check
