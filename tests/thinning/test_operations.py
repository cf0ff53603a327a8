"""Operations that need a rule of their own: packed sequences, fresh states, products with weights, experts."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from potstill.thinning import trace

from .networks import Between, class_of, left_after, rand


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(5, 16, batch_first=True), nn.Linear(16, 2)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.out(nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


def test_units_behind_a_padded_sequence():
    units = [2, 7]
    rows = [(0, [16 * gate + unit for gate in range(3) for unit in units])]
    every = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    zeros = {f"rnn__{name}": rows for name in every}
    left, _ = left_after(Packed(), (rand(3, 6, 5), torch.tensor([6, 4, 3])), **zeros)
    assert left["rnn.weight_hh_l0"] == (42, 14) and left["out.weight"] == (2, 14)


class PackedWords(Packed):
    """Words become features before they are packed."""

    def __init__(self):
        super().__init__()
        self.words, self.mix = nn.Embedding(20, 12), nn.Linear(12, 5)

    def forward(self, x, lengths):
        return super().forward(self.mix(self.words(x)).relu(), lengths)


def test_features_before_a_packed_sequence():
    zeros = {"mix__weight": [(0, [1, 3])], "mix__bias": [(0, [1, 3])], "words__weight": [(1, [4, 5, 6])]}
    inputs = torch.randint(20, (3, 6)), torch.tensor([4, 6, 3])
    left, _ = left_after(PackedWords(), inputs, **zeros)
    assert left["words.weight"] == (20, 9) and left["mix.weight"] == (3, 9) and left["rnn.weight_ih_l0"] == (48, 3)


class Recurrent(nn.Module):
    """Begins with a state of zeros and writes its steps into a fresh tensor."""

    def __init__(self):
        super().__init__()
        self.hidden, self.step, self.out = 8, nn.Linear(11, 8), nn.Linear(8, 2)

    def forward(self, x):
        state, every = x.new_zeros(len(x), self.hidden), torch.zeros(len(x), x.shape[1], self.hidden)
        for t in range(x.shape[1]):
            state = torch.tanh(self.step(torch.cat([x[:, t], state], 1)))
            every[:, t] = state
        return self.out(every)


def test_a_state_that_begins_as_zeros_and_a_tensor_that_is_filled():
    model = Recurrent()
    left, _ = left_after(
        model, (rand(2, 4, 3),), (rand(3, 6, 3),), step__weight=[(0, [2, 5])], step__bias=[(0, [2, 5])]
    )
    assert left == {"step.weight": (6, 9), "step.bias": (6,), "out.weight": (2, 6), "out.bias": (2,)}
    assert model.hidden == 6


class Latent(nn.Module):
    """Keys in two parts that are written into a fresh tensor: one of each head, one that all heads share."""

    def __init__(self):
        super().__init__()
        self.own, self.turned, self.width = 4, 2, 5
        self.queries, self.latent, self.shared = nn.Linear(8, 18), nn.Linear(8, 27), nn.Linear(8, 2)
        self.join = nn.Linear(15, 3)

    def forward(self, x):
        batch, length = x.shape[:2]
        queries = self.queries(x).view(batch, length, -1, self.own + self.turned).transpose(1, 2)
        latent = self.latent(x).view(batch, length, -1, self.own + self.width).transpose(1, 2)
        own, values = latent.split([self.own, self.width], -1)
        keys = latent.new_empty(*latent.shape[:-1], self.own + self.turned)
        keys[..., : self.own].copy_(own)
        keys[..., self.own :].copy_(self.shared(x).view(batch, 1, length, self.turned))
        mixed = (queries @ keys.mT).softmax(-1) @ values
        return self.join(mixed.transpose(1, 2).reshape(batch, length, -1))


def test_heads_whose_keys_are_written_in_parts():
    values = [(0, list(range(13, 18)))]  # those of the second head
    left, _ = left_after(Latent(), (rand(2, 5, 8),), (rand(3, 4, 8),), latent__weight=values, latent__bias=values)
    assert [left[f"{name}.weight"] for name in ("queries", "latent", "shared")] == [(12, 8), (18, 8), (2, 8)]
    assert left["join.weight"] == (3, 10)


class Products(nn.Module):
    def __init__(self, equation, shape):
        super().__init__()
        self.equation, self.first, self.out = equation, nn.Linear(6, 16), nn.Linear(12, 3)
        self.weight, self.bias = nn.Parameter(rand(*shape)), nn.Parameter(rand(1, 12))

    def forward(self, x):
        x = F.relu(self.first(x))
        return self.out(F.relu(torch.einsum(self.equation, x, self.weight) + self.bias))


@pytest.mark.parametrize(("equation", "shape"), [("bc,cd->bd", (16, 12)), ("bc,dc->bd", (12, 16))])
def test_a_sum_with_a_weight_of_ones_own(equation, shape):
    made, read = shape.index(12), shape.index(16)
    zeros = {"first__weight": [(0, [1, 2])], "first__bias": [(0, [1, 2])]}
    zeros |= {"weight": [(made, [3, 4])], "bias": [(1, [3, 4])]}
    left, _ = left_after(Products(equation, shape), (rand(4, 6),), **zeros)
    assert (left["weight"][made], left["weight"][read], left["out.weight"]) == (10, 14, (3, 10))
    # the weight's own columns that nothing makes are none of its rows
    shapes = left_after(Products(equation, shape), (rand(4, 6),), weight=[(read, [1])])[0]
    assert shapes["first.weight"] == (15, 6)


class Experts(nn.Module):
    """Two experts of one tensor each way; every row goes to one of them, chosen by its values."""

    def __init__(self, way):
        super().__init__()
        self.way, self.gate, self.out = way, nn.Linear(8, 2), nn.Linear(8, 3)
        self.up, self.down = nn.Parameter(rand(2, 32, 8)), nn.Parameter(rand(2, 8, 16))

    def forward(self, x):
        expert = self.gate(x).argmax(1)
        if self.way == "loop":
            y = torch.zeros_like(x)
            for number in range(2):
                rows = (expert == number).nonzero()[:, 0]
                y.index_add_(0, rows, self.expert(number, x[rows]))
        elif self.way == "split":  # all rows are the second one's
            y = torch.cat([self.expert(number, rows) for number, rows in enumerate(x.split([0, len(x)]))])
        else:
            order = expert.argsort()
            offsets = torch.cumsum(torch.histc(expert.float(), bins=2, min=0, max=1), 0, dtype=torch.int32)
            a, b = torch._grouped_mm(x[order], self.up.transpose(1, 2), offs=offsets).chunk(2, -1)
            y = torch._grouped_mm(F.silu(a) * b, self.down.transpose(1, 2), offs=offsets)
            y = torch.zeros_like(y).index_put((order,), y)
        return self.out(x + y)

    def expert(self, number, rows):
        a, b = F.linear(rows, self.up[number]).chunk(2, -1)
        return F.linear(F.silu(a) * b, self.down[number])


WAYS = [("loop", [3, 4, 9], 13), ("split", [3, 4, 9], 13), ("grouped", [3, 4, 9, 11, 12], 12)]


@pytest.mark.parametrize(("way", "dead", "kept"), WAYS)
def test_hidden_units_of_experts(way, dead, kept):
    if way == "grouped" and not hasattr(torch, "_grouped_mm"):
        pytest.skip("this torch has no grouped product")
    rows = dead + [16 + unit for unit in dead]
    left, recipe = left_after(Experts(way), (rand(12, 8),), up=[(1, rows)])
    assert (left["up"], left["down"]) == ((2, 2 * kept, 8), (2, 8, kept))
    # grouped products take rows of multiples of 16 bytes
    assert ("multiples of what their operation needs" in str(recipe)) == (way == "grouped")


class AllExperts(nn.Module):
    """Every expert sees every row: matrices side by side in one parameter, by `einsum`."""

    def __init__(self):
        super().__init__()
        self.up, self.bias, self.down = (nn.Parameter(rand(*shape)) for shape in ((3, 6, 8), (3, 8), (3, 8, 4)))
        self.gate = nn.Linear(6, 3)

    def forward(self, x):
        y = (torch.einsum("bd,edh->beh", x, self.up) + self.bias).relu()
        return (torch.einsum("beh,eho->beo", y, self.down) * self.gate(x).softmax(-1)[..., None]).sum(1)


def test_hidden_units_of_experts_that_all_see_all():
    left, _ = left_after(AllExperts(), (rand(5, 6),), up=[(2, [1, 4])], bias=[(1, [1, 4])])
    assert (left["up"], left["bias"], left["down"]) == ((3, 6, 6), (3, 6), (3, 6, 4))


NO_ROWS = {
    "split": lambda x: x.split([0, len(x)]),
    "slice": lambda x: (x[:0], x),
    "narrow": lambda x: (
        x.unsqueeze(1).narrow(0, 0, 0),
        x.unsqueeze(1),
    ),  # a Linear of three dimensions views
}


class Idle(nn.Module):
    """Two experts, of which one gets no rows."""

    def __init__(self, way):
        super().__init__()
        self.way, self.first = way, nn.Linear(6, 6)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))

    def forward(self, x):
        return torch.cat([e(part) for e, part in zip(self.experts, NO_ROWS[self.way](self.first(x)), strict=True)])


@pytest.mark.parametrize("way", NO_ROWS)
def test_an_expert_that_gets_no_rows_loses_its_channels_all_the_same(way):
    names = [f"experts__{i}__0__{part}" for i in range(2) for part in ("weight", "bias")]
    rows = {"first__weight": [(0, [2])], "first__bias": [(0, [2])]}
    left, _ = left_after(Idle(way), (rand(5, 6),), **{name: [(0, [1, 4])] for name in names}, **rows)
    assert [left[f"experts.{i}.{j}.weight"] for i in range(2) for j in (0, 2)] == [(6, 5), (3, 6)] * 2


class Adapted(nn.Module):
    """A weight that is the sum of a parameter and of the product of two small ones."""

    def __init__(self):
        super().__init__()
        self.whole, self.left, self.right = (nn.Parameter(rand(*shape)) for shape in ((8, 6), (8, 4), (4, 6)))
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(F.linear(x, self.whole + self.left @ self.right))


def test_rows_of_a_weight_that_is_computed():
    rows = [(0, [1, 4])]
    left, _ = left_after(Adapted(), (rand(5, 6),), whole=rows, left=rows)
    assert (left["whole"], left["left"], left["right"], left["out.weight"]) == ((6, 6), (6, 4), (4, 6), (3, 6))
    left, _ = left_after(Adapted(), (rand(5, 6),), whole=rows)
    assert left["whole"] == (8, 6)


@pytest.mark.parametrize("layer", [nn.Linear(6, 8), nn.Conv1d(6, 8, 3, padding=1)], ids=["linear", "convolution"])
def test_rows_of_a_weight_that_its_spectral_norm_divides(layer):
    """Zero rows add nothing to the norm, which a vector of one element a row computes."""
    layer = torch.nn.utils.parametrizations.spectral_norm(layer)
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(8, 3) if layer.weight.ndim == 2 else nn.Conv1d(8, 3, 1))
    rows = [(0, [1, 4])]
    zeros = {"0__parametrizations__weight__original": rows, "0__bias": rows}
    left, _ = left_after(model.eval(), (rand(2, 6) if layer.weight.ndim == 2 else rand(2, 6, 5),), **zeros)
    assert (left["0.parametrizations.weight.original"][0], left["2.weight"][1]) == (6, 6)
    assert len(model[0].parametrizations.weight[0]._u) == 6


class Curves(nn.Module):
    """Each channel at some frequencies of a table; a sum over both, by `einsum`."""

    def __init__(self):
        super().__init__()
        self.first, self.weight = nn.Linear(6, 8), nn.Parameter(rand(4, 8, 3))
        self.register_buffer("table", rand(3))

    def forward(self, x):
        return torch.einsum("bif,oif->bo", (self.first(x)[..., None] * self.table).sin(), self.weight)


def test_channels_that_are_summed_with_a_table_of_theirs():
    rows = [(0, [1, 4])]
    left, _ = left_after(Curves(), (rand(5, 6),), first__weight=rows, first__bias=rows)
    assert (left["first.weight"], left["weight"]) == ((6, 6), (4, 6, 3))


class Query(nn.Module):
    """Reads a parameter as an input: some of its channels, or all of them, are zero."""

    def __init__(self, columns):
        super().__init__()
        self.query, self.first, self.out = nn.Parameter(rand(3, 8)), nn.Linear(8, 5), nn.Linear(6, 5)
        with torch.no_grad():
            self.query[:, :columns] = 0

    def forward(self, x):
        return self.first(self.query).sum(0) + self.out(x)


@pytest.mark.parametrize(("columns", "kept"), [(2, 6), (8, 8)])
def test_a_parameter_that_starts_as_zeros_is_none_that_was_pruned(columns, kept):
    left, _ = left_after(Query(columns), (rand(4, 6),))
    assert (left["query"], left["first.weight"]) == ((3, kept), (5, kept))


class Skipping(nn.Module):
    """Goes through its inner layer if all channels that are not dead are there: without one, another layer is next."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.gate = nn.Linear(8, 1)
        with torch.no_grad():
            self.first.weight.mul_(0.01)
            self.first.bias.fill_(1.0)
            self.gate.weight.fill_(1.0)
            self.gate.bias.fill_(-6.5)

    def forward(self, x):
        x = F.relu(self.first(x))
        return self.out(self.inner(x) if float(self.gate(x).mean()) > 0 else x)


def test_another_path_that_data_chose_says_nothing_about_sizes():
    left, _ = left_after(Skipping(), (rand(4, 6),), first__weight=[(0, [2])], first__bias=[(0, [2])])
    assert (left["first.weight"], left["inner.weight"]) == ((7, 6), (8, 7))


def multiplied(x, experts):
    """Rows by the matrix of their expert, of which there are two."""
    ends = torch.tensor([5, 12], dtype=torch.int32) if x.ndim == 2 else None
    return torch._grouped_mm(x, experts, offs=ends).reshape(12, 16)


CHOSEN = "experts are chosen by data"
EXPERTS = {
    "experts": (lambda m, x: multiplied(x, m.up), "up", CHOSEN),
    "rows": (lambda m, x: multiplied(m.rows, m.up), "rows", CHOSEN),
    "a matrix for each": (lambda m, x: multiplied(x.view(2, 6, 8), m.up), "up", "not a matrix for each group of rows"),
}


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this torch has no grouped product")
@pytest.mark.parametrize("name", EXPERTS)
def test_neither_experts_nor_rows_go(name):
    function, parameter, reason = EXPERTS[name]
    parts = {"up": nn.Parameter(rand(2, 8, 16)), "rows": nn.Parameter(rand(12, 8))}
    found = class_of(Between(function, 16, parts), rand(12, 6), parameter)
    assert found.status == "frozen" and reason in found.reason


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this torch has no grouped product")
def test_experts_are_layers():
    graph = trace(Experts("grouped"), rand(12, 8))
    assert [(layer.weight, layer.positions) for layer in graph.layers if "gate" not in layer.weight][:2] == [
        ("up", 0.5),
        ("down", 0.5),
    ]
    assert roles_of(graph) == ["out", "in"] * 2


def roles_of(graph):
    roles = {(use.name, use.dim): use.role for use in graph.uses}
    return [roles[name, dim] for name in ("up", "down") for dim in (1, 2)]


@pytest.mark.parametrize("way", ["loop", "split"])
def test_experts_that_are_parts_of_a_parameter_make_and_read_channels(way):
    assert roles_of(trace(Experts(way), rand(12, 8))) == ["out", "in"] * 2


class Spectrum(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim, self.first, self.out = dim, nn.Conv1d(3, 8, 1), nn.Conv1d(8, 2, 1)

    def forward(self, x):
        x = torch.fft.rfft(self.first(x), dim=self.dim)
        return self.out(torch.fft.irfft(x, dim=self.dim, n=8))


def test_a_fourier_transform_of_each_channel_and_one_over_them():
    zeros = {"first__weight": [(0, [1, 2])], "first__bias": [(0, [1, 2])]}
    assert left_after(Spectrum(2), (rand(2, 3, 8),), **zeros)[0]["first.weight"][0] == 6
    left, recipe = left_after(Spectrum(1), (rand(2, 3, 8),), **zeros)
    assert left["first.weight"][0] == 8 and "a Fourier transform over the channels" in str(recipe)


class Correlation(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        first, second = (torch.fft.rfft(layer(x), dim=1) for layer in (self.first, self.second))
        return self.out(torch.fft.irfft(first * torch.conj(second), dim=1, n=6))


def test_a_correlation_by_spectra_loses_what_is_zero_in_one_of_them():
    zeros = {"first__weight": [(0, [1, 2])], "first__bias": [(0, [1, 2])]}
    left, _ = left_after(Correlation(), (rand(2, 6, 4),), **zeros)
    assert left["first.weight"] == left["second.weight"] == (6, 4) and left["out.weight"] == (2, 6)


class Distances(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(4, 8)

    def forward(self, x):
        return torch.cdist(self.first(x), self.second(x))


def test_distances_lose_what_is_zero_in_both():
    zero = [(0, [1, 2])]
    zeros = dict.fromkeys(("first__weight", "first__bias", "second__weight", "second__bias"), zero)
    assert left_after(Distances(), (rand(1, 5, 4),), **zeros)[0]["second.weight"] == (6, 4)
    one = {"first__weight": zero, "first__bias": zero}
    assert left_after(Distances(), (rand(1, 5, 4),), **one)[0]["second.weight"] == (8, 4)


def test_rows_that_are_compared_stay():
    model = Between(lambda m, x: torch.cdist(m.rows, x).mT, 5, {"rows": nn.Parameter(rand(5, 8))})
    found = class_of(model, rand(4, 6), "rows")
    assert found.status == "frozen" and "rows are compared one by one" in found.reason


def test_deformable_convolutions():
    ops = pytest.importorskip("torchvision.ops")

    class Deformable(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.offset = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 18, 3, padding=1)
            self.deform, self.out = ops.DeformConv2d(16, 12, 3, padding=1), nn.Conv2d(12, 3, 1)

        def forward(self, x):
            x = F.relu(self.stem(x))
            return self.out(F.relu(self.deform(x, self.offset(x))))

    zeros = {key: [(0, [1, 2])] for key in ("stem__weight", "stem__bias")}
    zeros |= {key: [(0, [5])] for key in ("deform__weight", "deform__bias")}
    left, _ = left_after(Deformable(), (rand(2, 3, 8, 8),), **zeros)
    assert (left["offset.weight"][:2], left["deform.weight"][:2], left["out.weight"][1]) == ((18, 14), (11, 14), 11)


class Tokens(nn.Module):
    """Puts its own tokens (maybe none) before those of the input."""

    def __init__(self, own):
        super().__init__()
        self.embed, self.own, self.out = nn.Linear(6, 16), nn.Parameter(torch.randn(own, 16)), nn.Linear(16, 3)

    def forward(self, x):
        own = self.own.unsqueeze(0).expand(len(x), -1, -1)
        return self.out(torch.cat((own, self.embed(x)), dim=1))


@pytest.mark.parametrize("own", [0, 1])
def test_tokens_of_which_there_may_be_none(own):
    zeros = {"embed__weight": [(0, [2, 7, 9])], "embed__bias": [(0, [2, 7, 9])]}
    left, _ = left_after(Tokens(own), (rand(2, 5, 6),), **zeros, **({"own": [(1, [2, 7, 9])]} if own else {}))
    assert left["embed.weight"] == (13, 6) and left["own"] == (own, 13)
