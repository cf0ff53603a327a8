"""The sparsity table, against counts made by hand."""

import io
import json

import pandas as pd
import pytest
import torch
from torch import nn

from potstill.compression import Masks, format_table, masks_table, masks_text, sparsity, sparsity_table, sparsity_text
from potstill.compression.sparsity_tables import COLUMNS


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(4, 5))
    with torch.no_grad():
        net[0].weight[1] = 0  # one of 4 filters: 3 kernels of 12
        net[0].weight[:, 2] = 0  # one of 3 input channels: 3 kernels more
        net[2].weight[:2] = 0  # two of 5 outputs
        net[2].weight[:, 3] = 0  # one of 4 inputs
        net[0].bias.zero_()
    return net


def test_percentages_of_structures(model):
    table = sparsity_table(model).set_index("Name")
    conv, linear = table.loc["0.weight"], table.loc["2.weight"]
    assert conv[["Ch (%)", "2D (%)", "3D (%)"]].tolist() == pytest.approx([100 / 3, 50, 25])
    assert conv["Fine (%)"] == pytest.approx(50)
    assert linear[["Cols (%)", "Rows (%)"]].tolist() == pytest.approx([40, 25])
    assert linear["NNZ (sparse)"] == 20 - 8 - 3
    assert conv["Std"] == pytest.approx(float(model[0].weight.std()))
    assert conv["Abs-Mean"] == pytest.approx(float(model[0].weight.abs().mean()))


def test_rows_are_parameters_and_the_total_is_a_line(model):
    """What `table["NNZ (dense)"].sum()` says is the number of these parameters' elements, no more."""
    dense = 48 + 4 + 20 + 5
    zeros = 24 + 4 + 11
    assert sparsity_table(model)["NNZ (dense)"].sum() == 48 + 20
    every = sparsity_table(model, all_parameters=True)
    assert list(every["Name"]) == [name for name, _ in model.named_parameters()]
    assert every["NNZ (sparse)"].sum() == dense - zeros
    assert sparsity(model) == pytest.approx(zeros / dense)
    told = f"zeros {100 * zeros / dense:.2f} % of {dense} parameters, mean "
    for form, line in (("text", -1), ("markdown", -1)):
        assert sparsity_text(model, form).splitlines()[line].startswith(told)
    assert "zeros" not in sparsity_text(model, "csv") + sparsity_text(model, "json")


def test_forms(model):
    table = sparsity_table(model)
    assert pd.read_csv(io.StringIO(format_table(table, "csv"))).columns.tolist() == list(COLUMNS)
    assert json.loads(format_table(table, "json"))[0]["Name"] == "0.weight"
    assert "| 0.weight" in format_table(table, "markdown")
    assert "NNZ (dense)" in format_table(table)
    with pytest.raises(ValueError, match="no form 'xml': text, csv, markdown or json"):
        format_table(table, "xml")


def test_pandas_options_stay(model):
    before = pd.get_option("display.precision")
    format_table(sparsity_table(model))
    assert pd.get_option("display.precision") == before


def test_masks_hide_together_and_other_zeros_do_not_count(model):
    masks = Masks(nn.DataParallel(model))
    one, other = torch.ones(4, 3, 2, 2), torch.ones(4, 3, 2, 2)
    one[0], other[:, 1] = 0, 0  # 12 of 48 elements, 16 of 48, and 4 of both
    masks.set("a", "0.weight", one)
    masks.set("b", "module.0.weight", other, mode="forward")
    masks.set("b", "0.bias", torch.tensor([0.0, 1, 1, 1]))
    found = masks_table(model, masks)
    assert list(found["Name"]) == ["0.weight", "2.weight"]
    assert list(found["Fine (%)"]) == pytest.approx([100 * 24 / 48, 0])
    assert masks_text(model, masks).endswith(f"masked {100 * 25 / 77:.2f} % of 77 parameters")
