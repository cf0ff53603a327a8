"""Whole heads go, whatever turns their channels and whatever counts them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from potstill.thinning import thin
from potstill.thinning.tracing.log import AttributeCount, TraceLog
from potstill.thinning.tracing.numbering import counting, numbering

HEADS, WIDTH, FEATURES, WORDS = 4, 6, 10, 5


class Turned(nn.Module):
    """Attention whose queries and keys are pairs of channels, complex numbers that positions turn (Llama 4)."""

    def __init__(self):
        super().__init__()
        size = HEADS * WIDTH
        self.width, self.out = WIDTH, nn.Linear(size, FEATURES, bias=False)
        self.q, self.k, self.v = (nn.Linear(FEATURES, size, bias=False) for _ in range(3))
        self.register_buffer("speeds", 10.0 ** -torch.arange(WIDTH // 2), persistent=False)

    def forward(self, x):
        angles = torch.arange(x.shape[1])[:, None] * self.speeds
        turns = torch.polar(torch.ones_like(angles), angles).to(torch.complex128)[None, :, None]
        q, k, v = (layer(x).view(*x.shape[:-1], -1, self.width) for layer in (self.q, self.k, self.v))
        q, k = (torch.view_as_complex(y.reshape(*y.shape[:-1], -1, 2)) for y in (q, k))
        q, k = (torch.view_as_real(y * turns).flatten(3) for y in (q, k))
        scores = (q.transpose(1, 2) @ k.permute(0, 2, 3, 1)).softmax(-1)
        return self.out((scores @ v.transpose(1, 2)).transpose(1, 2).flatten(2))

    def parts(self):
        return self.q.weight, self.k.weight, self.v.weight


class Counted(nn.Module):
    """Attention of one weight, which knows the width of a head but leaves it open in the view (Qwen's images)."""

    def __init__(self):
        super().__init__()
        size = HEADS * WIDTH
        self.num_heads, self.head_dim = HEADS, WIDTH
        self.qkv, self.out = nn.Linear(FEATURES, 3 * size, bias=False), nn.Linear(size, FEATURES, bias=False)
        self.register_buffer("speeds", 10.0 ** -torch.arange(WIDTH // 2), persistent=False)

    def forward(self, x):
        q, k, v = self.qkv(x).reshape(*x.shape[:-1], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        angles = (torch.arange(x.shape[1])[:, None] * self.speeds).repeat(1, 2)
        q, k = (y * angles.cos() + y.roll(WIDTH // 2, -1) * angles.sin() for y in (q, k))
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=self.head_dim**-0.5)
        return self.out(y.transpose(1, 2).flatten(2))

    def parts(self):
        return self.qkv.weight.chunk(3)


@pytest.mark.parametrize("kind", [Turned, Counted])
@pytest.mark.parametrize("heads", [[0], [3], [1, 2]])
def test_whole_heads_go(kind, heads):
    torch.manual_seed(0)
    model, x = kind().double().eval(), torch.randn(2, WORDS, FEATURES).double()
    with torch.no_grad():
        for part in model.parts():
            part.view(HEADS, WIDTH, -1)[heads] = 0
        before = model(x)
        thin(model, x)
        assert (model(x) - before).abs().max() <= 1e-12
    assert sum(parameter.numel() for parameter in model.parameters()) == 4 * (HEADS - len(heads)) * WIDTH * FEATURES
    assert getattr(model, "head_dim", WIDTH) == WIDTH


def test_the_width_of_a_head_counts_nothing_where_whole_heads_go():
    log = TraceLog()
    rows = log.ids_of("weight", 0, HEADS * WIDTH).view(HEADS, WIDTH)
    log.attributes = [AttributeCount("", "heads", None, rows[:, 0]), AttributeCount("", "width", None, rows[0])]
    assert {count.name for count in counting(log, numbering(log))} == {"heads", "width"}
    log.unite(rows, rows[:, :1], "")
    assert [count.name for count in counting(log, numbering(log))] == ["heads"]


class Pairs(nn.Module):
    """Pairs of channels that are turned as complex numbers, without attention."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(FEATURES, 2 * WIDTH), nn.Linear(2 * WIDTH, 3)
        self.register_buffer("turns", torch.polar(torch.ones(WIDTH), torch.arange(float(WIDTH))), persistent=False)

    def forward(self, x):
        pairs = torch.view_as_complex(self.first(x).unflatten(-1, (-1, 2)))
        return self.last(torch.view_as_real(pairs * self.turns).flatten(-2))


def test_a_pair_that_is_zero_is_zero_after_it_was_turned():
    model = Pairs()
    nn.init.zeros_(model.first.weight[2:4])
    nn.init.zeros_(model.first.bias[2:4])
    thin(model, torch.randn(2, FEATURES))
    assert (model.first.out_features, model.last.in_features, len(model.turns)) == (2 * WIDTH - 2, 2 * WIDTH - 2, 5)
