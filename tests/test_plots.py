"""The pictures: what they show of data that is known by hand, in figures of one's own and of theirs."""

import csv
import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from torch import nn

from potstill import plots, prune_channels
from potstill.compression import Window, dict_config, dry_run, load_schedule
from potstill.compression.sensitivity import Point
from potstill.plots import Act
from potstill.plots.sensitivity import _ticks

X = torch.randn(2, 3, 9, 9)
ROW = {"train_loss": 1.0, "val_loss": 1.0, "train_top1": 50, "val_top1": 40, "lr": 0.1, "zeros": 0.0, "gone": 0.0}
SCHEDULE = {
    "pruners": {"half": {"class": "SparsityLevelParameterPruner", "levels": {"0.weight": 0.5}}},
    "regularizers": {"gates": {"class": "L0Regularizer", "weights": ["0.weight"], "target_sparsity": 0.25}},
    "lr_schedulers": {"rate": {"class": "StepLR", "step_size": 1}},
    "policies": [
        {"pruner": {"instance_name": "half"}, "starting_epoch": 1, "ending_epoch": 4, "frequency": 2},
        {"regularizer": {"instance_name": "gates"}, "starting_epoch": 2, "ending_epoch": 3},
        {"lr_scheduler": {"instance_name": "rate"}, "starting_epoch": 0, "ending_epoch": 5},
    ],
}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))


def rows(*more):
    return [{"epoch": epoch, **ROW, **part} for epoch, part in enumerate(more)]


def panel_called(figure, title):
    (found,) = [axis for axis in figure.axes if axis.get_title() == title]
    return found


def spans(axis):
    """First and last x of what is shaded."""
    shaded = [patch for patch in axis.patches if isinstance(patch, (Rectangle, Polygon)) and patch.get_alpha() == 0.1]
    return [(patch.get_extents().x0, patch.get_extents().x1) for patch in shaded], axis


def in_data(axis, x):
    return axis.transData.inverted().transform((x, 0))[0]


def test_what_gates_expect_have_and_shall_have_share_an_axis():
    size = [{}, {}, {"gates.expected_sparsity": 0.1, "gates.gated_sparsity": 0.05}, {}]
    axis = panel_called(plots.metrics(rows(*size), load_schedule(SCHEDULE, net())), "gates: share removed")
    found = {line.get_label(): list(line.get_ydata()) for line in axis.get_lines()}
    assert found == {"expected": [0.1], "present": [0.05], "goal": [0.25, 0.25]}


def test_windows_are_shaded_in_each_panel():
    """An epoch stands at its number: the window of epochs 1 to 3 reaches from 0.5 to 3.5. Learning rates shade none."""
    scheduler = dict_config(model := net(), torch.optim.SGD(model.parameters(), 0.1), SCHEDULE, example_inputs=X)
    for policies in (scheduler, load_schedule(SCHEDULE, net())):
        figure = plots.metrics(rows({}, {}, {}, {}, {}), policies)
        assert len(figure.axes) == 4
        for axis in figure.axes:
            shaded, _ = spans(axis)
            found = [tuple(round(in_data(axis, x), 6) for x in span) for span in shaded]
            assert found == [(0.5, 3.5), (1.5, 2.5)]
            assert axis.get_xlim() == (-0.5, 4.5)
        told = [text.get_text() for text in figure.legends[0].get_texts()]
        assert told == ["window of half", "window of gates"]


def test_windows_in_minibatches_are_shown_where_an_epochs_are_known():
    act = Act("late", "pruner", Window.between(6, 12, 1, "minibatch"))
    assert spans(plots.metrics(rows({}, {}), [act]).axes[0])[0] == []
    optimizer = torch.optim.SGD((model := net()).parameters(), 0.1)
    config = {**SCHEDULE, "regularizers": {}, "lr_schedulers": {}, "policies": [
        {"pruner": {"instance_name": "half"}, "starting_minibatch": 6, "ending_minibatch": 12}]}  # fmt: skip
    scheduler = dict_config(model, optimizer, config, example_inputs=X)
    scheduler.on_epoch_begin(0, optimizer, 6)
    scheduler.on_minibatch_begin(0, 0, 6, optimizer)
    bars = plots.timeline(scheduler).axes[0].patches
    assert (bars[0].get_x(), bars[0].get_width()) == (1.0, 1.0)


def test_metrics_come_as_rows_tables_and_files(tmp_path):
    """What begins late is drawn where it is known; a rate of 0 has no logarithm."""
    known = rows({"lr": 0}, {"lr": 0}, {"lr": 0, "part": 3.0})
    with (tmp_path / "metrics.csv").open("w") as file:
        writer = csv.DictWriter(file, ["epoch", *ROW, "part"])
        writer.writeheader()
        writer.writerows(known)
    for given in (known, tmp_path, tmp_path / "metrics.csv"):
        figure = plots.metrics(given)
        (line,) = panel_called(figure, "part").get_lines()
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([2], [3.0])
        assert panel_called(figure, "learning rate").get_yscale() == "linear"
    with pytest.raises(ValueError, match="no epochs"):
        plots.metrics([])
    with pytest.raises(ValueError, match="no panel 'l': there are loss, top1"):
        plots.metrics(known, panels=["l"])


SENSE = "parameter,sparsity,top1\na,0.1,50\n"


@pytest.mark.parametrize(
    ("draw", "name", "content", "match"),
    [
        (plots.metrics, "metrics.csv", "epoch,lr\n0,x\n", "'lr' holds something else than numbers"),
        (plots.metrics, "metrics.csv", "lr\n0\n", "has no column epoch"),
        (plots.metrics, "metrics.csv", "", "no table"),
        (plots.metrics, "metrics.csv", "epoch\n\xff", "no table|something else"),
        (plots.metrics, "metrics.csv", "epoch,\x1b[31m\n0,=1\n", r"'\\\\x1b\[31m' holds"),
        (plots.metrics, "metrics.csv", ",".join(["epoch", *map(str, range(500))]) + "\n" + "0," * 500 + "0\n", "501"),
        (plots.sensitivity, "sensitivity.csv", SENSE.replace("50", "[]"), "'top1' holds something else"),
        (plots.sensitivity, "sensitivity.csv", SENSE + "".join(f"{n},0.1,1\n" for n in range(3000)), "3,001 param"),
    ],
)
def test_files_may_be_anybodys(tmp_path, draw, name, content, match):
    (tmp_path / name).write_bytes(content.encode("latin1"))
    with pytest.raises(ValueError, match=match):
        draw(tmp_path)
    (tmp_path / name).rename(tmp_path / "away")
    (tmp_path / name).symlink_to(tmp_path / "away")
    with pytest.raises(OSError, match="is a link or no regular file"):
        draw(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(OSError, match="no regular file"):
            draw(path)


def test_a_share_of_0_is_not_lost_in_the_frame():
    course = dry_run({**SCHEDULE, "policies": SCHEDULE["policies"][2:]}, net(), 2, X)
    figures = plots.metrics(rows({}, {}, {})), plots.timeline([], course)
    panels = [axis for figure in figures for axis in figure.axes if "zeros" in axis.get_ylabel() + axis.get_title()]
    assert len(panels) == 2
    for axis in panels:
        low, high = axis.get_ylim()
        assert low < -0.03 * high < 0


def test_dry_run_is_a_table_and_leaves_the_network():
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    course = dry_run(SCHEDULE, model, 4, X, lr=1.0)
    assert list(course["learning rate"]) == pytest.approx([1, 0.1, 0.01, 0.001])
    assert list(course["zeros (%)"])[:2] == pytest.approx([0, 100 * 108 / 532])
    assert course["parameters (%)"].iloc[-1] == pytest.approx(100 * course["parameters"].iloc[-1] / 532)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    figure = plots.timeline(load_schedule(SCHEDULE, model), course)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["half (0.5)", "gates (0.25)", "rate"]
    assert len(figure.axes) == 4


def test_dry_runs_take_inputs_of_any_shape():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 8)
            self.out = nn.Linear(8, 3)

        def forward(self, a, b):
            return {"logits": self.out(self.layer(a + b).relu())}

    pruner = {"class": "GradientRankedFilterPruner", "desired_sparsity": 0.5, "weights": ["layer.weight"]}
    schedule = {"pruners": {"p": pruner}, "policies": [{"pruner": {"instance_name": "p"}, "epochs": [1]}]}
    course = dry_run(schedule, Two(), 2, {"a": torch.randn(2, 4), "b": torch.randn(2, 4)})
    assert list(course["parameters"]) == [67, 67 - 4 * 8]


def test_channels_of_two_networks_and_of_a_recipe():
    model, dense = net(), net()
    recipe = prune_channels(model, X, sparsity=0.5)
    left = model[0].out_channels
    for figure, kept in ((plots.channels(dense, model), [4, left]), (plots.channels(recipe), [left])):
        bars = [round(patch.get_width()) for patch in figure.axes[0].patches]
        names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
        assert names == ["3", "0"][-len(kept) :]
        assert bars == [*[4, 8][-len(kept) :], *kept]


def test_sensitivity_of_all_weights_and_of_one():
    points = [Point(name, level, 90 - 50 * level) for name in ("a", "b") for level in (0.0, 0.3, 0.6)]
    overview = plots.sensitivity(points, 90.0, 20.0)
    assert [text.get_text() for text in overview.axes[0].get_yticklabels()] == ["b", "a"]
    assert list(overview.axes[0].get_xticks()) == [0.0, 0.3, 0.6]
    assert overview.axes[0].collections[1].get_offsets().tolist() == [[0.3, 0.0], [0.3, 1.0]]
    full = [(point.parameter, point.sparsity, point.scores, 99.0, 0.5) for point in points]
    one = plots.sensitivity(full, parameter="a")
    assert [list(axis.get_xticks()) for axis in one.axes] == [[0.0, 0.3, 0.6]] * 2
    assert list(one.axes[0].get_lines()[0].get_ydata()) == [90, 75, 60]
    with pytest.raises(ValueError, match="no parameter 'c'"):
        plots.sensitivity(points, parameter="c")
    with pytest.raises(ValueError, match="no rows"):
        plots.sensitivity([])


def test_many_sparsities_have_a_tick_every_so_often():
    levels = [number / 20 for number in range(20)]
    assert _ticks(levels) == levels[::2]
    assert _ticks(levels[:12]) == levels[:12]


def test_pictures_go_into_axes_of_ones_own():
    figure = Figure()
    axes = figure.subplots(2, 2).flatten()
    schedule = load_schedule(SCHEDULE, net())
    drawn = [
        plots.timeline(schedule, ax=axes[0]),
        plots.metrics(rows({}, {}), schedule, panels=["loss"], ax=axes[1]),
        plots.channels(net(), ax=axes[2]),
        plots.sensitivity([("a", 0.5, 90.0)], ax=axes[3]),
    ]
    assert all(one is figure for one in drawn)
    assert all(axis.has_data() for axis in axes)
    assert figure.legends == []
    with pytest.raises(ValueError, match="ax is for one panel"):
        plots.metrics(rows({}), ax=axes[0])


def test_notebooks_show_them_without_pyplot():
    loaded = "matplotlib.pyplot" in sys.modules
    assert plots.timeline(load_schedule(SCHEDULE, net()))._repr_png_().startswith(b"\x89PNG")
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_missing_matplotlib_is_told(monkeypatch):
    from potstill.plots import style

    style._picture.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r'need the extra "plot": pip install "potstill\[plot\]"'):
        plots.channels(net())


def test_the_page_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schedule.yaml").write_text(json.dumps(SCHEDULE))
    page = (Path(__file__).parents[1] / "docs" / "notebooks.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, {"model": net(), "images": X})
    assert (tmp_path / "timeline.pdf").stat().st_size > 1000
