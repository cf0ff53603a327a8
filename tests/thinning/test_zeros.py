"""Slices of zeros: which ones go, which stay, and what the recipe says of these."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from potstill.thinning import count_macs, outlook, thin

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(n, 8, 3, padding=1) for n in (3, 8, 8))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.a(x).relu()
        return self.head((x + self.c(self.b(x).relu())).relu())


@torch.no_grad()
def zero(layer: nn.Module, rows: list[int]) -> None:
    layer.weight[rows] = 0
    layer.bias[rows] = 0


def told(recipe) -> set[tuple[int, str, str]]:
    return {(kept.channels, kept.use, kept.reason) for kept in recipe.refused}


def test_filters_on_a_residual_sum_are_named_with_those_that_share_them() -> None:
    model = Residual()
    zero(model.c, [1, 2, 5])
    zero(model.b, [0, 3])
    parts = {(part.name, part.fate): part for part in outlook(model, X).slices if part.dim == 0}
    assert parts["b.weight", "removed"].indices.tolist() == [0, 3]
    assert parts["c.weight", "stays"].indices.tolist() == [1, 2, 5]
    assert parts["c.weight", "stays"].shared == ("a.weight",)
    recipe = thin(model, X)
    assert told(recipe) == {(3, "c.weight[0]", "the same channels as a.weight, not zero there")}
    assert model.b.out_channels == 6


def test_filters_that_several_share_are_one_line_a_weight() -> None:
    """Whatever the others' zeros make of each filter: every zero slice is counted once."""

    class Two(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.d = nn.Conv2d(8, 8, 1)

        def forward(self, x):
            x = self.a(x).relu()
            return self.head((x + self.c(self.b(x).relu()) + self.d(self.b(x).relu())).relu())

    model = Two()
    zero(model.c, [1, 2, 5])
    zero(model.d, [5])
    (part,) = (part for part in outlook(model, X).slices if (part.name, part.fate) == ("c.weight", "stays"))
    assert part.indices.tolist() == [1, 2, 5]
    assert set(part.shared) == {"a.weight", "d.weight"}
    lines = [line for line in str(thin(model, X)).splitlines() if "c.weight[0]: the same" in line]
    assert [line.split(":")[0] for line in lines] == ["  3 channels of c.weight[0]"]
    assert "not zero in all of these" in lines[0]


def test_members_of_groups_that_are_not_zero_alike() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 1))
    zero(model[0], [0, 1, 2, 3, 9])
    recipe = thin(model, X)
    assert model[0].out_channels == 14
    why = "one channel with other slices of 0.weight that are not zero (groups, heads, halves)"
    assert told(recipe) == {(3, "0.weight[0]", why)}


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, lambda width: nn.GroupNorm(2, width)], ids=["exact", "inexact"])
def test_the_plan_is_what_thinning_does(norm) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), norm(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    zero(model[0], [1, 5])
    zero(model[1], [1, 5])
    exact, loose = copy.deepcopy(model), copy.deepcopy(model)
    found = outlook(model, X)
    fates = {part.fate: len(part.indices) for part in found.slices if (part.name, part.dim) == ("0.weight", 0)}
    thin(exact, X)
    thin(loose, X, allow_inexact=True)
    assert found.parameters == tuple(sum(p.numel() for p in net.parameters()) for net in (model, exact))
    assert found.macs == (count_macs(model, X), count_macs(exact, X))
    assert fates.get("removed", 0) == 8 - len(exact[0].weight)
    assert fates.get("inexact", 0) == len(exact[0].weight) - len(loose[0].weight)
    assert found.inexact == (sum(p.numel() for p in loose.parameters()), count_macs(loose, X))


def test_columns_that_others_read_and_frozen_rows() -> None:
    model = Residual()
    with torch.no_grad():
        model.b.weight[:, 2] = 0
    zero(model.head, [1])
    assert told(thin(model, X)) == {
        (1, "b.weight[1]", "other parameters read these channels"),
        (1, "head.weight[0]", "an output of the model"),
    }


def test_nothing_is_said_of_networks_without_zeros() -> None:
    assert outlook(Residual(), X).slices == ()
