"""Pictures show on white and on black; TensorBoard gets what metrics.csv has, by layer too."""

import csv
import re
import sys

import pytest
import torch
from torchvision.io import read_image

import compress_classifier
from potstill.command.modes.timeline import Epoch
from potstill.command.monitors.tensorboard import PLACES
from potstill.command.plots import timeline, training
from potstill.command.plots.sensitivity import _ticks, plot_sensitivity
from potstill.command.plots.training import plot_metrics
from potstill.compression import load_checkpoint

SCHEDULE = """
pruners:
  half: {class: SparsityLevelParameterPruner, levels: {layers.1.weight: 0.5}}
regularizers:
  l1: {class: L1Regularizer, reg_regims: {layers.8.weight: 1.0e-3}}
policies:
  - {pruner: {instance_name: half}, epochs: [1]}
  - {regularizer: {instance_name: l1}, starting_epoch: 1, ending_epoch: 3, frequency: 1}
"""
PICTURES = ("metrics", "channels", "norms", "weights", "path")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with everything that draws or logs."""
    out = tmp_path_factory.mktemp("pictures")
    (out / "s.yaml").write_text(SCHEDULE)
    small = ["--limit-train", "96", "--limit-test", "30", "--limit-validation", "30", "-b", "32", "--lr", "0.02"]
    more = ["--plot", "--tensorboard", "--trajectory", "--compress", str(out / "s.yaml"), "-o", str(out)]
    assert compress_classifier.main(["-a", "mlp_bn_drop", *small, *more]) == 0
    return (out / "latest").resolve()


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_show_on_white_and_on_black(run, name):
    """Without a background, and drawn in colours that differ from both."""
    pixels = read_image(str(run / f"{name}.png"), mode="RGB_ALPHA").float() / 255
    ink, alpha = pixels[:3], pixels[3]
    assert (alpha == 0).float().mean() > 0.5
    luminance = (ink * torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1, 1)).sum(0)[alpha == 1]
    assert luminance.min() > 0.2 and luminance.max() < 0.8
    drawing = (run / f"{name}.svg").read_text()
    assert not re.search(r"#000000|#ffffff", drawing)


def test_metrics_that_begin_late_or_are_missing_are_drawn(tmp_path):
    rows = [
        {"epoch": e, "train_loss": 1.0, "val_loss": None, "train_top1": 50, "val_top1": 40, "lr": 0}
        | {"zeros": 0, "gone": 0}
        for e in range(3)
    ]
    rows[2]["part"] = 3.0
    plot_metrics(rows, tmp_path)
    assert "<!-- part -->" in (tmp_path / "metrics.svg").read_text()


def test_sensitivity_has_a_tick_for_each_sparsity(tmp_path):
    rows = [(name, level, 90 - 50 * level, 99.0, 0.5) for name in ("a", "b") for level in (0.0, 0.3, 0.6)]
    plot_sensitivity(rows, 90.0, 1.0, tmp_path)
    for path, panels in (("sensitivity.svg", 1), ("sensitivity/a.svg", 2)):
        written = re.findall(r"<!-- (\S+) -->", (tmp_path / path).read_text())
        assert [written.count(tick) for tick in ("0.0", "0.3", "0.6")] == [panels] * 3, path
        assert not {"−0.1", "0.1", "0.2", "0.4"} & set(written)


def test_many_sparsities_have_a_tick_every_so_often():
    levels = [number / 20 for number in range(20)]
    assert _ticks(levels) == levels[::2]
    assert _ticks(levels[:12]) == levels[:12]


def test_a_sparsity_of_0_is_not_lost_in_the_frame(tmp_path, monkeypatch):
    figures = []
    for module in (training, timeline):
        monkeypatch.setattr(module, "save", lambda figure, stem: figures.append(figure) or [])
    timeline.plot_timeline([], [Epoch(0.1, 0.0, 0.0, 10, 10)] * 3, (10, 10), tmp_path)
    row = {"train_loss": 1.0, "val_loss": 1.0, "train_top1": 50, "val_top1": 40, "lr": 0.1, "zeros": 0.0, "gone": 0.0}
    plot_metrics([{"epoch": epoch, **row} for epoch in range(3)], tmp_path)
    panels = [axis for figure in figures for axis in figure.axes if "zeros" in axis.get_ylabel() + axis.get_title()]
    assert len(panels) == 2
    for axis in panels:
        low, high = axis.get_ylim()
        assert low < -0.03 * high < 0


def test_tensorboard_has_the_metrics_the_sparsity_of_each_layer_and_histograms(run):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run), size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert "L1Regularizer_loss" in rows[0]
    for name in rows[0].keys() - {"epoch"}:
        tag = PLACES.get(name, f"Performance/Training/{name}")
        found = {event.step: event.value for event in events.Scalars(tag)}
        assert found == pytest.approx({int(row["epoch"]): float(row[name]) for row in rows if row[name]}), name
    weights = load_checkpoint(run / "checkpoint.pt")["state_dict"]
    for name in ("layers.1.weight", "layers.8.weight", "layers.3.bias"):
        zeros = [event.value for event in events.Scalars(f"sparsity/weights/{name}")]
        assert zeros[-1] == pytest.approx(float((weights[name] == 0).float().mean()))
        last = events.Histograms(name.replace(".", "/"))[-1]
        assert last.step == 2
        assert last.histogram_value.num == weights[name].numel()
        assert last.histogram_value.sum == pytest.approx(float(weights[name].sum()), abs=1e-3)


def test_missing_tensorboard_is_told_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    small = ["-a", "mlp_bn_drop", "--limit-train", "32", "--limit-test", "10", "--epochs", "1"]
    with pytest.raises(SystemExit) as caught:
        compress_classifier.main([*small, "--tensorboard", "-o", str(tmp_path)])
    assert caught.value.code == 2
    assert '--tensorboard needs the extra: pip install "potstill[tensorboard]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
