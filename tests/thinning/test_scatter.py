"""Sums over the edges of graphs: an index says into which row each row goes."""

import pytest
import torch
from torch import nn

from potstill.thinning import thin, trace

from .networks import left_after, rand


def added(messages, to, count):
    return messages.new_zeros(count, messages.shape[1]).index_add_(0, to, messages)


def scattered(messages, to, count, reduce=None):
    out, where = messages.new_zeros(count, messages.shape[1]), to.view(-1, 1).expand_as(messages)
    return out.scatter_add(0, where, messages) if reduce is None else out.scatter_reduce(0, where, messages, reduce)


def mean(messages, to, count):
    number = messages.new_zeros(count).index_add_(0, to, messages.new_ones(len(to))).clamp(min=1)
    total = scattered(messages, to, count)
    return total / number.view(-1, 1).expand_as(total)


def into_another(messages, to, count):
    return messages[:count].clone().index_add(0, to, messages, alpha=2)


def transposed(messages, to, count):
    wide = messages.t()
    return wide.new_zeros(wide.shape[0], count).scatter_add_(1, to.view(1, -1).expand_as(wide), wide).t()


def largest(messages, to, count):
    return scattered(messages, to, count, "amax")


def placed(messages, to, count):
    out = messages.new_zeros(messages.shape)
    out[torch.arange(len(messages)).flip(0)] = messages
    return out


def beside_zeros(messages, to, count):
    zeros = messages.new_zeros(messages.shape)
    return zeros.index_add(0, to, messages) + zeros.index_put((to,), messages) + zeros


def averages(messages, to, count):
    return messages.new_zeros(count, messages.shape[1]).index_reduce(0, to, messages, "mean")


def blank(messages, to, count):
    return messages.index_fill(0, to[:4], 0.0)


def blank_by_position(messages, to, count):
    return messages.clone().scatter_(0, to[:4].view(-1, 1).expand(-1, messages.shape[1]), 0.0)


def copied(messages, to, count):
    return messages.clone().index_copy_(0, torch.arange(5), messages[-5:] * 2)


def last_written(messages, to, count):
    where = torch.arange(len(messages)).flip(0).view(-1, 1).expand_as(messages)
    return messages.new_zeros(messages.shape).scatter(0, where, messages)


class Graph(nn.Module):
    """Two layers that send what they compute along edges."""

    def __init__(self, gather):
        super().__init__()
        self.first, self.second, self.gather = nn.Linear(6, 12), nn.Linear(12, 3), gather

    def forward(self, x, edges):
        hidden = self.first(x).relu()
        return self.second(self.gather(hidden[edges[0]], edges[1], len(x)))


def inputs():
    return torch.randn(9, 6), torch.randint(9, (2, 20))


SUMS = [added, scattered, mean, into_another, transposed, largest, placed, beside_zeros, averages]
WRITES = [blank, blank_by_position, copied, last_written]


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("gather", [*SUMS, *WRITES])
def test_channels_pass_through_sums_over_edges(thinned, gather):
    recipe = thinned(Graph(gather), inputs())
    assert sorted(recipe.selectors()) == ["first.bias", "first.weight", "second.weight"]
    assert recipe.parameters[1] == 8 * 7 + 3 * 9


def constant(messages, to, count):
    """Rows of a tensor that is not zero: what a dead channel becomes is not zero either."""
    return messages.new_ones(count, messages.shape[1]).index_add_(0, to, messages)


def marked(messages, to, count):
    """Rows of ones among those of zeros."""
    return messages.index_fill(0, to[:4], 1.0)


def filled_channels(messages, to, count):
    return messages.index_fill(1, torch.tensor([1, 2]), 0.0)


def some_columns(messages, to, count):
    return messages.scatter(0, to[:4].view(-1, 1).expand(-1, 5), 0.0)


def fixed(messages, to, count):
    return messages.new_zeros(count, 12).index_add_(0, to, messages)


def part(messages, to, count):
    return messages.new_zeros(count, 12).scatter_add(0, to.view(-1, 1).expand(-1, 4), messages)


def across(messages, to, count):
    where = (torch.arange(messages.shape[1]) // 2).expand_as(messages)
    return messages.new_zeros(len(messages), 12).scatter_add(1, where, messages)


def columns(messages, to, count):
    out = messages.new_zeros(messages.shape)
    out[:, torch.arange(12).flip(0)] = messages
    return out


def into_channels(messages, to, count):
    out = messages.t().clone()
    out[torch.tensor([0, 5])] = 1.0
    return out.t()


def channels_as_rows(messages, to, count):
    out = messages.new_zeros(12, len(messages))
    out[torch.arange(12).flip(0)] = messages.t()
    return out.t()


REASONS = {
    constant: "",
    marked: "",
    filled_channels: "rows are chosen by an index",
    some_columns: "takes a part of what it reads",
    fixed: "a size is fixed in the model's code",
    part: "takes a part of what it reads",
    across: "rows are chosen by an index",
    columns: "rows are chosen by an index",
    into_channels: "rows are chosen by an index",
    channels_as_rows: "rows are chosen by an index",
}


@pytest.mark.parametrize("gather", REASONS)
def test_what_is_not_a_sum_of_whole_rows_stays_the_same(gather):
    """Removed or not, the outputs are those of the masked model on other graphs."""
    model, other = Graph(gather), inputs()
    with torch.no_grad():
        model.first.weight[[1, 4, 7]] = 0
        model.first.bias[[1, 4, 7]] = 0
        expected = model(*other)
        thin(model, inputs())
        assert torch.allclose(model(*other), expected, atol=1e-6)
    hidden = next(c for c in trace(Graph(gather), inputs()).classes() if c.size == 12)
    assert REASONS[gather] in hidden.reason
    assert (hidden.status == "removable") == (not REASONS[gather])


class Masked(nn.Module):
    """Rows that a mask chooses go through a layer and back, as features of an image among words; others become 0."""

    def __init__(self):
        super().__init__()
        self.first, self.other, self.out = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x, mask):
        hidden = self.first(x).relu()
        hidden = hidden.masked_scatter(mask.unsqueeze(-1), self.other(hidden[mask]))
        hidden[mask.flip(0)] += 1.0 * hidden[mask.flip(0)]
        hidden[~mask & mask.flip(0)] = 0.0
        return self.out(hidden)


@pytest.mark.parametrize("some", [True, False])
def test_channels_pass_through_rows_that_a_mask_chooses(some):
    model, x, mask = Masked(), torch.randn(9, 6), torch.arange(9) % 2 + (not some) == 2
    assert bool(mask.any()) != some
    with torch.no_grad():
        for layer in (model.first, model.other):
            layer.weight[[1, 2, 5]] = 0
            layer.bias[[1, 2, 5]] = 0
        before = model(x, mask)
        thin(model, (x, mask))
        torch.testing.assert_close(model(x, mask), before)
    assert [tuple(p.weight.shape) for p in (model.first, model.other, model.out)] == [(9, 6), (9, 9), (3, 9)]


class Points(nn.Module):
    """Writes every third row of a copy anew, then joins it with another branch."""

    def __init__(self):
        super().__init__()
        self.stem, self.boxes, self.points = nn.Conv1d(3, 12, 1), nn.Conv1d(12, 5, 1), nn.Conv1d(12, 6, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        y = self.points(x).clone()
        y[:, 2::3] = y[:, 2::3].sigmoid()
        y[:, 0::3] = 2 * y[:, 0::3] + torch.arange(y.shape[2])
        return torch.cat([self.boxes(x), y], 1)


def test_rows_that_are_written_anew_before_they_are_joined():
    zeros = {"stem__weight": [(0, [2, 7])], "stem__bias": [(0, [2, 7])]}
    left, _ = left_after(Points(), (rand(2, 3, 8),), **zeros)
    assert (left["boxes.weight"], left["points.weight"]) == ((5, 10, 1), (6, 10, 1))
