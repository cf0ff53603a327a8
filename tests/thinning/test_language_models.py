"""Language models: heads behind rotary embeddings, groups of queries, caches, the residual stream under RMSNorm."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from potstill.thinning import Recipe, ThinningError, load, save, thin

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
    before = [model(x) for x in batches]
    recipe = thin(model, batches[0])
    after = [model(x) for x in batches]
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
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


class Turned(nn.Module):
    """Heads of which the first `turned` places are turned by a table that the code makes; keys may be one for all."""

    def __init__(self, turned, keys, repeated=True):
        super().__init__()
        self.q, self.o = nn.Linear(16, 4 * HEAD), nn.Linear(4 * HEAD, 16)
        self.k, self.v = nn.Linear(16, keys * HEAD), nn.Linear(16, keys * HEAD)
        self.turned, self.groups, self.repeated = turned, 4 // keys, repeated

    def turn(self, x):
        angles = torch.arange(x.shape[2]).unsqueeze(1) * torch.arange(1, self.turned // 2 + 1)
        part, rest = x[..., : self.turned], x[..., self.turned :]
        left, right = part.chunk(2, -1)
        turned = part * angles.cos().repeat(1, 2) + torch.cat([-right, left], -1) * angles.sin().repeat(1, 2)
        return torch.cat([turned, rest], -1)

    def repeat(self, x):
        """Repeat keys for their queries as eager attention does, or leave it to the product."""
        if not self.repeated:
            return x
        batch, keys, length, width = x.shape
        many = x[:, :, None].expand(batch, keys, self.groups, length, width)
        return many.reshape(batch, keys * self.groups, length, width)

    def forward(self, x):
        q, k, v = (w(x).unflatten(-1, (-1, HEAD)).transpose(1, 2) for w in (self.q, self.k, self.v))
        weights = (self.turn(q) @ self.repeat(self.turn(k)).transpose(2, 3)).softmax(-1)
        return self.o((weights @ self.repeat(v)).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("turned", [2, 4, HEAD])
def test_heads_that_a_fixed_table_turns_in_part_or_as_a_whole(turned):
    model = Turned(turned, 4)
    with torch.no_grad():
        for layer in (model.q, model.k, model.v):
            layer.weight[HEAD : 2 * HEAD] = layer.bias[HEAD : 2 * HEAD] = 0
    thinned(model, *batches())
    assert [len(layer.weight) for layer in (model.q, model.k, model.v)] == [3 * HEAD] * 3


@pytest.mark.parametrize("repeated", [True, False])
def test_queries_of_one_key_for_all_go_one_by_one(repeated):
    model = Turned(4, 1, repeated)
    with torch.no_grad():
        model.o.weight[:, HEAD : 2 * HEAD] = 0
    thinned(model, *batches())
    assert (len(model.q.weight), len(model.k.weight), model.o.weight.shape[1]) == (3 * HEAD, HEAD, 3 * HEAD)
    assert model.groups == (3 if repeated else 4)


class Fused(nn.Module):
    """Queries, one key and one value in one weight, taken apart by numbers of rows."""

    def __init__(self):
        super().__init__()
        self.qkv, self.o, self.num_heads = nn.Linear(16, 6 * HEAD), nn.Linear(4 * HEAD, 16), 4

    def forward(self, x):
        rows = self.qkv(x).view(*x.shape[:2], self.num_heads + 2, HEAD)
        q, k, v = (part.transpose(1, 2) for part in (rows[..., :-2, :], rows[..., [-2], :], rows[..., [-1], :]))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_rows_that_a_list_of_numbers_takes():
    model = Fused()
    with torch.no_grad():
        model.o.weight[:, HEAD : 2 * HEAD] = 0
    thinned(model, *batches())
    assert (model.num_heads, len(model.qkv.weight), model.o.weight.shape[1]) == (3, 5 * HEAD, 3 * HEAD)


class FusedGroups(nn.Module):
    """Two queries, their key and their value side by side, group after group, in one weight."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.num_keys = 8, 4
        self.qkv, self.o = nn.Linear(16, 16 * HEAD), nn.Linear(8 * HEAD, 16)

    def forward(self, x):
        rows = self.qkv(x).view(*x.shape[:2], -1, self.num_heads // self.num_keys + 2, HEAD)
        q, k, v = rows[..., :-2, :], rows[..., [-2], :], rows[..., [-1], :]
        q, k, v = (part.expand_as(q).flatten(2, 3) for part in (q, k, v))
        q, k, v = (part.transpose(1, 2).reshape(len(x), self.num_heads, -1, HEAD) for part in (q, k, v))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_groups_of_rows_each_with_its_key_and_value():
    model = FusedGroups()
    with torch.no_grad():
        model.o.weight[:, 2 * HEAD : 4 * HEAD] = 0
    thinned(model, *batches())
    assert (model.num_heads, model.num_keys, model.qkv.weight.shape, model.o.weight.shape) == (
        6,
        3,
        (12 * HEAD, 16),
        (16, 6 * HEAD),
    )


class RootMeanSquare(nn.Module):
    """The norm of language models; some add 1 to the weight."""

    def __init__(self, size, offset=0.0):
        super().__init__()
        self.weight, self.epsilon, self.offset = nn.Parameter(torch.rand(size) + 0.5), 0.3, offset

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * (self.weight + self.offset)


class Activated(RootMeanSquare):
    """A norm with its activation inside, as in timm's networks."""

    def __init__(self, size):
        super().__init__(size)
        self.drop, self.act = nn.Identity(), nn.GELU()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class Residual(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.embed, self.norm, self.last = nn.Linear(5, 16, bias=False), make(16), make(16)
        self.up, self.down, self.out = nn.Linear(16, 24), nn.Linear(24, 16, bias=False), nn.Linear(16, 3)

    def forward(self, x):
        x = self.embed(x)
        return self.out(self.last(x + self.down(F.relu(self.up(self.norm(x))))))


@torch.no_grad()
def dead_stream(model, at):
    for layer in (model.embed, model.down):
        layer.weight[at] = 0
    return model


NORMS = {
    "plain": RootMeanSquare,
    "one more": lambda size: RootMeanSquare(size, 1.0),
    "torch's": lambda size: nn.RMSNorm(size, 0.3),
    "without eps": nn.RMSNorm,
    "with an activation": Activated,
}


@pytest.mark.parametrize("make", NORMS.values(), ids=NORMS)
def test_a_root_mean_square_makes_up_for_channels_that_go(make):
    model = dead_stream(Residual(make), [2, 7, 8])
    batches = torch.randn(4, 5), 0.01 * torch.randn(4, 5)
    recipe = thinned(model, *batches)
    # embed, 2 norms, up and its bias, down, out and its bias
    assert sum(p.numel() for p in model.parameters()) == 13 * (5 + 2 + 24 + 24 + 3) + 24 + 3
    assert "rescaled for means over fewer channels: norm.weight, last.weight" in str(recipe)


def test_what_a_recipe_rescales_is_stored_checked_and_composed():
    models = [dead_stream(Residual(NORMS["one more"]), [2, 7]) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    x = torch.randn(4, 5)
    first = thin(models[0], x)
    second = thin(dead_stream(models[0], [3]), x)
    both = Recipe.from_json(first.then(second).to_json())
    both.apply(dead_stream(models[1], [3 + 1]))  # one before it has gone
    torch.testing.assert_close(models[1](x), models[0](x))
    norm = both.rescalings[0]
    assert (norm.factor, norm.offset, norm.old, norm.new) == pytest.approx(((16 / 13) ** 0.5, 1, 0.3, 0.3 * 16 / 13))
    assert models[1].norm.epsilon == norm.new
    with pytest.raises(ThinningError, match="factor"):
        Recipe.from_json(both.to_json().replace('"factor": 1', '"factor": -1'))
    with pytest.raises(ThinningError, match="is no number that a norm adds"):
        replace(both, rescalings=(replace(norm, attribute="training"),)).apply(
            dead_stream(Residual(NORMS["one more"]), [])
        )


def test_recipes_without_rescalings_are_as_before():
    recipe = thin(silence(Rotary(4, 4), [1]), batches()[0])
    assert '"version": 1' in recipe.to_json() and "rescalings" not in recipe.to_json()
    assert Recipe.from_json(recipe.to_json()).to_json() == recipe.to_json()


def test_a_stored_network_has_the_rescaled_norms(tmp_path):
    model = dead_stream(Residual(nn.RMSNorm), [2, 7, 8])
    x = torch.randn(4, 5)
    path = save(model, thin(model, x), tmp_path / "thinned.safetensors", x)
    again = load(Residual(nn.RMSNorm), path)
    assert again.norm.eps == model.norm.eps == pytest.approx(torch.finfo().eps * 16 / 13)
    torch.testing.assert_close(again(x), model(x))
