"""What a prompt and a notebook show of schedulers, schedules, recipes, accounts and masks."""

import re
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, Masks, dict_config, load_schedule
from potstill.thinning import thin
from potstill.thinning.files.html import html_table

EVIL = "<script>alert(1)</script>"


class Text(HTMLParser):
    """Collects tags and cells."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.cells = set(), []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.cells.append(data.strip())


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))


def half(name="half"):
    pruner = {"class": "L1RankedStructureParameterPruner", "desired_sparsity": 0.5, "weights": ["0.weight"]}
    return {
        "pruners": {name: {**pruner, "group_type": "Filters"}},
        "policies": [{"pruner": {"instance_name": name}, "epochs": [1]}],
    }


@pytest.fixture
def scheduler():
    model = net()
    made = dict_config(model, None, half(), example_inputs=torch.randn(2, 3, 9, 9))
    made.on_epoch_begin(1)
    return made


def test_scheduler_tells_size_policies_and_when_they_acted(scheduler):
    zeros = 4 * 27 + 4 + 4 + 8  # filters, biases, scales; all shifts of a new norm are zero
    lines = repr(scheduler).splitlines()
    assert lines[0] == f"CompressionScheduler of Sequential: 532 parameters, {100 * zeros / 532:.2f} % of them zeros"
    assert lines[1] == "masks of 4 of 6 parameters, which hide 120 weights"
    assert lines[2] == "  half: L1RankedStructureParameterPruner, epoch 1; acted: epoch 1"
    cells = Text(scheduler._repr_html_()).cells
    assert {"half", "L1RankedStructureParameterPruner", "epoch 1", lines[0]} <= set(cells)
    scheduler.thin()
    assert "thinned: 532 -> 268 parameters" in repr(scheduler)
    assert repr(CompressionScheduler(net())).endswith("\nno policies yet")


def test_masks_tell_what_they_hide(scheduler):
    assert repr(scheduler.masks).splitlines()[1] == "  0.weight (8x3x3x3): 108 of 216 hidden by half (hard)"
    assert Text(scheduler.masks._repr_html_()).cells.count("half (hard)") == 4
    assert repr(scheduler.masks["0.bias"]) == "ParameterMask(0.bias: 4 hidden by half (hard))"
    assert repr(Masks(net())) == "masks of 0 of 6 parameters, which hide 0 weights"


def test_account_looks_as_it_is_logged(scheduler):
    account = scheduler.account()
    assert "| half     | 0.weight    | filters |    8 |       4 |" in repr(account)
    assert "removable" in Text(account._repr_html_()).cells
    assert type(account[account["of"] > 3]).__name__ == "DataFrame"
    assert account["hidden"].sum() == 4


def test_recipe_is_a_line_and_a_table(scheduler):
    recipe = scheduler.thin()
    assert re.fullmatch(r"Recipe for Sequential: 532 -> 268 parameters, .* multiply-adds; max .*", repr(recipe))
    assert {"0.weight", "8x3x3x3", "4x3x3x3"} <= set(Text(recipe._repr_html_()).cells)
    assert "no channel is dead" in thin(net(), torch.randn(2, 3, 9, 9))._repr_html_()


def test_schedule_has_a_row_a_policy():
    schedule = load_schedule(half(), net())
    row = "  pruner, half, L1RankedStructureParameterPruner, epoch 1, 0.5"
    assert repr(schedule).splitlines() == ["Schedule: 1 instances, 1 policies", row]
    assert {"half", "epoch 1", "0.5"} <= set(Text(schedule._repr_html_()).cells)


def test_names_are_no_markup_and_no_commands():
    """A schedule of a stranger names an instance as it likes."""
    model = net()
    made = dict_config(model, None, half(EVIL), example_inputs=torch.randn(2, 3, 9, 9))
    made.on_epoch_begin(1)
    for thing in (made, made.masks, made.account(), load_schedule(half(EVIL), model)):
        shown = Text(thing._repr_html_())
        assert shown.tags <= {"p", "table", "tr", "th", "td"}, thing
        assert any("<script>alert(1)</script>" in cell for cell in shown.cells), thing


def test_long_tables_are_cut_and_say_so():
    shown = Text(html_table(("a",), [(n,) for n in range(50)]))
    assert "39" in shown.cells and "40" not in shown.cells
    assert "… and 10 more" in shown.cells
    assert "<td></td><td></td><td>1,234</td>" in html_table(("a", "b", "c"), [(None, float("nan"), 1234)])


def test_control_characters_are_shown_and_not_sent():
    assert "\x1b" not in html_table(("a\x1b",), [("b\x1b[31m",)])
