"""Parameters that stand beside tokens: a class token, the newline of an image. They make channels as a bias does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from potstill.thinning import trace

from .networks import Between, left_after, rand

X = rand(2, 4, 6)
JOINED = {
    "before": lambda m, x: torch.cat([m.token.expand(2, 1, -1), x], 1),
    "behind": lambda m, x: torch.cat([x, m.token.expand(2, 1, -1)], 1),
    "stacked": lambda m, x: torch.stack([x[:, 0], m.token[0].expand(2, -1)]),
}


def model_of(way):
    return Between(JOINED[way], 8, {"token": nn.Parameter(rand(1, 1, 8) if way != "stacked" else rand(1, 8))})


@pytest.mark.parametrize("way", JOINED)
def test_channels_that_are_zero_in_a_token_too_go(way):
    model, dead = model_of(way), [1, 2]
    rows = {"first__weight": [(0, dead)], "first__bias": [(0, dead)], "token": [(model.token.ndim - 1, dead)]}
    left, _ = left_after(model, (X,), **rows)
    assert (left["first.weight"], left["token"][-1], left["second.weight"]) == ((6, 6), 6, (3, 6))


@pytest.mark.parametrize("way", JOINED)
def test_a_token_makes_channels(way):
    (role,) = {use.role for use in trace(model_of(way), X).uses if use.name == "token" and len(use.channels) == 8}
    assert role == "shift"


@pytest.mark.parametrize("way", JOINED)
def test_channels_of_a_token_that_is_not_zero_stay(way):
    model, dead = model_of(way), [1, 2]
    left, _ = left_after(model, (X,), first__weight=[(0, dead)], first__bias=[(0, dead)])
    assert left["first.weight"] == (8, 6)


ALONG_TOKENS = {
    "cumsum": lambda m, h: h.cumsum(1),
    "cumprod": lambda m, h: h.cumprod(1),
    "cummax": lambda m, h: h.cummax(1)[0],
    "sort": lambda m, h: h.sort(1, descending=True)[0],
    "topk": lambda m, h: h.topk(2, 1)[0],
    "triangle of the batch and the tokens": lambda m, h: h.permute(2, 0, 1).tril().permute(1, 2, 0),
}


@pytest.mark.parametrize("way", ALONG_TOKENS)
def test_zeros_stay_zeros_whatever_looks_along_the_tokens(way):
    zeros = {"first__weight": [(0, [1, 2])], "first__bias": [(0, [1, 2])]}
    left, _ = left_after(Between(ALONG_TOKENS[way]), (X,), **zeros)
    assert (left["first.weight"], left["second.weight"]) == ((6, 6), (3, 6))


@pytest.mark.parametrize(
    ("along", "reason"),
    [(lambda m, h: h.cumsum(2), "over the channels"), (lambda m, h: h.tril(), "the position decides")],
)
def test_what_looks_along_the_channels_freezes_them(along, reason):
    assert any(reason in group.reason for group in trace(Between(along), (X,)).classes())
