"""Language models: heads behind rotary embeddings, groups of queries, caches, the residual stream under RMSNorm."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from potstill.thinning import thin

HEAD = 8


class Rotary(nn.Module):
    """Heads of width 8, turned by tables that all share."""

    def __init__(self, queries, keys):
        super().__init__()
        self.q, self.o = nn.Linear(16, queries * HEAD, bias=False), nn.Linear(queries * HEAD, 16, bias=False)
        self.k, self.v = nn.Linear(16, keys * HEAD, bias=False), nn.Linear(16, keys * HEAD, bias=False)
        self.groups = queries // keys
        angles = torch.outer(torch.arange(32.0), 1 / 100 ** (torch.arange(0, HEAD, 2) / HEAD)).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def turned(self, x):
        left, right = x.chunk(2, -1)
        return x * self.cos[: x.shape[2]] + torch.cat([-right, left], -1) * self.sin[: x.shape[2]]

    def forward(self, x):
        q, k, v = (w(x).unflatten(-1, (-1, HEAD)).transpose(1, 2) for w in (self.q, self.k, self.v))
        k, v = self.turned(k).repeat_interleave(self.groups, 1), v.repeat_interleave(self.groups, 1)
        return self.o(F.scaled_dot_product_attention(self.turned(q), k, v).transpose(1, 2).flatten(2))


@torch.no_grad()
def silence(model, heads):
    for head in heads:
        model.q.weight[head * HEAD : (head + 1) * HEAD] = 0
        model.o.weight[:, head * HEAD : (head + 1) * HEAD] = 0
    return model


def thinned(model, *batches):
    before = [copy.deepcopy(model).double()(x.double()) for x in batches]
    recipe = thin(model, batches[0])
    after = [copy.deepcopy(model).double()(x.double()) for x in batches]
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b)
    return recipe


def batches():
    return torch.randn(2, 5, 16), torch.randn(3, 9, 16)


@pytest.mark.parametrize(
    ("keys", "heads", "left"),
    [(4, [1], (3, 3)), (2, [2, 3], (2, 1)), (1, [], (4, 1)), (4, [0, 2, 3], (1, 1))],
)
def test_a_table_for_all_heads_does_not_tie_them(keys, heads, left):
    model = silence(Rotary(4, keys), heads)
    thinned(model, *batches())
    assert (len(model.q.weight), len(model.k.weight)) == tuple(HEAD * count for count in left)
    assert model.cos.shape == (32, HEAD)


@pytest.mark.parametrize("heads", [[1, 3], [0, 3]])
def test_of_the_queries_of_each_key_equally_many_go_whichever_they_are(heads):
    model = silence(Rotary(4, 2), heads)
    thinned(model, *batches())
    assert (len(model.q.weight), len(model.k.weight), model.groups) == (2 * HEAD, 2 * HEAD, 1)


def test_a_query_of_one_key_alone_stays():
    model = silence(Rotary(4, 2), [1])
    assert thinned(model, *batches()).removes_nothing
