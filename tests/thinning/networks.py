"""What the networks of these tests are made of, and the checks that they go through."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn

from potstill.thinning import thin, trace
from potstill.thinning.testing import make_sensitive, zero_channels


class Networks(dict[str, Callable[[], Any]]):
    """Functions that make a network and its inputs, by name; a decorator that enters them.

    `said`: words of reasons that the recipe of a network must have. `untouched`: networks that lose nothing. `left`:
    the exact number of parameters that are left of each when 40 % of every class are dead, and, where there are classes
    that a norm averages over, the number that is left when those are dead too and `allow_inexact` is given. A rule
    that removes less than it could changes one of these numbers.
    """

    def __init__(
        self,
        said: Mapping[str, tuple[str, ...]],
        untouched: Collection[str] = (),
        left: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__()
        self.said, self.untouched, self.left = said, untouched, left or {}

    def __call__(self, build: Callable[[], Any]) -> Callable[[], Any]:
        self[build.__name__] = build
        return build

    def check(self, name: str, thinned: Callable[..., Any]) -> None:
        """Thin it, compare with the masked one, and read the reasons of what stays."""
        network, inputs = self[name]()
        recipe = thinned(network, inputs, 0.0 if name in self.untouched else 0.01)
        assert recipe.removes_nothing == (name in self.untouched)
        for words in self.said.get(name, ()):
            assert any(words in kept.reason for kept in (*recipe.frozen, *recipe.refused)), words
        assert (recipe.parameters[1], *self._left_inexact(name)) == self.left[name]

    def _left_inexact(self, name: str) -> tuple[int, ...]:
        """Thin another copy with `allow_inexact`, where that makes a difference."""
        network, inputs = self[name]()
        graph = trace(make_sensitive(network, inputs), inputs)
        if all(group.status != "inexact" for group in graph.classes()):
            return ()
        zero_channels(network, graph, 0.4, inexact=True)
        return (thin(network, inputs, allow_inexact=True).parameters[1],)


class Head(nn.Module):
    """A classifier on a body of convolutions."""

    def __init__(self, body, c):
        super().__init__()
        self.body = body
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(c, 10)

    def forward(self, x):
        return self.fc(self.pool(self.body(x)).flatten(1))


def cbr(i, o, k=3, s=1, g=1):
    return nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o), nn.ReLU())


def images():
    return torch.randn(2, 3, 16, 16)


DRAW = torch.Generator().manual_seed(0)


def rand(*shape):
    return torch.randn(*shape, generator=DRAW)


@torch.no_grad()
def left_after(model, inputs, *others, **zeros):
    """Zero slices (parameter -> [(dim, indices)]), thin, compare on all inputs; return what is left of parameters."""
    parameters = {name.replace(".", "__"): parameter for name, parameter in model.named_parameters()}
    for name, slices in zeros.items():
        for dim, indices in slices:
            parameters[name].index_fill_(dim, torch.tensor(indices), 0)
    batches = [inputs, *others]
    before = [copy.deepcopy(model).eval()(*x) for x in batches]
    recipe = thin(model, inputs)
    for x, wanted in zip(batches, before, strict=True):
        torch.testing.assert_close(copy.deepcopy(model).eval()(*x), wanted)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}, recipe


class Between(nn.Module):
    """A layer of 8 units, a function of this module and of them, a layer of 3."""

    def __init__(self, function, width=8, parts=()):
        super().__init__()
        self.first, self.second, self.function = nn.Linear(6, 8), nn.Linear(width, 3), function
        for name, part in dict(parts).items():
            setattr(self, name, part)

    def forward(self, x):
        return self.second(self.function(self, self.first(x)))


class Whole(Between):
    """The same in inference mode, in which torch hands composed operations over as they are (`linear`, `rms_norm`)."""

    @torch.inference_mode()
    def forward(self, x):
        return super().forward(x)


def class_of(model, inputs, name="first.weight", dim=0):
    """Return the one class of a parameter's dimension."""
    (found,) = [c for c in trace(model, inputs).classes() if any(use[:2] == (name, dim) for use in c.uses)]
    return found


@torch.no_grad()
def shrunk(model, x, **zeros):
    """Zero rows of layers (name -> indices), thin, compare; returns the recipe."""
    for name, rows in zeros.items():
        layer = model.get_submodule(name.replace("__", "."))
        for parameter in layer.parameters(recurse=False):
            parameter[rows] = 0
    model.eval()
    before = copy.deepcopy(model).double()(x.double())
    recipe = thin(model, x)
    torch.testing.assert_close(copy.deepcopy(model).double()(x.double()), before)
    return recipe
