"""How weights split into structures."""

import pytest
import torch
from torch import nn

from potstill.compression.parts.structures import (
    GROUPS,
    find_group,
    kwargs_problem,
    oriented,
    rank_problem,
    shape_problem,
)

WEIGHT = torch.arange(2 * 4 * 3 * 3).view(2, 4, 3, 3)
MEMBERS = {
    "2D": (8, lambda i: WEIGHT[i // 4, i % 4]),
    "3D": (2, lambda i: WEIGHT[i]),
    "Filters": (2, lambda i: WEIGHT[i]),
    "Cols": (2, lambda i: WEIGHT[i]),
    "Channels": (4, lambda i: WEIGHT[:, i]),
    "Rows": (4, lambda i: WEIGHT[:, i]),
    "4D": (1, lambda i: WEIGHT),
}


@pytest.mark.parametrize("group_type", GROUPS)
def test_split_and_expand(group_type):
    group = GROUPS[group_type]
    count, member = MEMBERS[group_type]
    assert group.count(WEIGHT.shape) == count
    structures = group.split(WEIGHT)
    assert len(structures) == count
    spread = group.expand(torch.arange(count), WEIGHT.shape)
    assert spread.shape == WEIGHT.shape
    for i in range(count):
        assert structures[i].sort().values.tolist() == member(i).flatten().sort().values.tolist()
        assert WEIGHT[spread == i].tolist() == member(i).flatten().sort().values.tolist()


def test_rows_are_inputs_and_cols_are_outputs():
    weight = torch.tensor([[1, 2, 3], [4, 5, 6]])  # 3 inputs, 2 outputs
    assert GROUPS["Rows"].split(weight).tolist() == [[1, 4], [2, 5], [3, 6]]
    assert GROUPS["Cols"].split(weight).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_block_spans_consecutive_filters_and_channels():
    """As Distiller documents it; its code gathered channels of one filter only."""
    group = find_group("Blocks", {"block_shape": [2, 2, 1, 1]})
    assert group.count(WEIGHT.shape) == 2 * 9
    first = {WEIGHT[f, c, 0, 0].item() for f in (0, 1) for c in (0, 1)}
    assert set(group.split(WEIGHT)[0].tolist()) == first
    spread = group.expand(torch.arange(18), WEIGHT.shape)
    assert set(WEIGHT[spread == 0].tolist()) == first
    assert set(WEIGHT[spread == 17].tolist()) == {WEIGHT[f, c, 2, 2].item() for f in (0, 1) for c in (2, 3)}


def test_what_is_wrong_with_groups():
    assert "2D needs a weight of 3 dimensions or more; fc has shape (2, 3)" in rank_problem("2D", "fc", (2, 3))
    blocks = find_group("Blocks", {"block_shape": [1, 3, 1, 1]})
    assert "blocks of [1, 3, 1, 1] do not divide w of shape" in shape_problem(blocks, "Blocks", "w", WEIGHT.shape)
    assert kwargs_problem("Filters", {"block_shape": [1]}) == "kwargs are for Blocks; Filters takes none"
    assert "Blocks needs kwargs" in kwargs_problem("Blocks", None)
    assert "whole numbers above 0" in kwargs_problem("Blocks", {"block_shape": [0, 8, 1, 1]})
    with pytest.raises(ValueError, match="no group type 'Filter' here: one of 2D, 3D, Filters"):
        find_group("Filter")


def test_a_transposed_convolution_has_its_filters_in_dimension_1():
    model = nn.Sequential(nn.ConvTranspose2d(4, 2, 3), nn.Conv2d(2, 4, 3))
    assert oriented(GROUPS["Filters"], "0.weight", model).kept == (1,)
    assert oriented(GROUPS["Channels"], "0.weight", model).kept == (0,)
    assert oriented(GROUPS["Filters"], "1.weight", model).kept == (0,)
    assert oriented(GROUPS["2D"], "0.weight", model).kept == (0, 1)
