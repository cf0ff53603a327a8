"""Pictures show on white and on black; TensorBoard gets what metrics.csv has, by layer too."""

import csv
import importlib.util
import re
import sys

import pytest
import torch
from torchvision.io import read_image

import compress_classifier
from potstill.command.monitors.tensorboard import PLACES
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
    """A finished run with everything that draws or logs, as far as it is installed."""
    out = tmp_path_factory.mktemp("pictures")
    (out / "s.yaml").write_text(SCHEDULE)
    small = ["--limit-train", "96", "--limit-test", "30", "--limit-validation", "30", "-b", "32", "--lr", "0.02"]
    there = {"--plot": "matplotlib", "--tensorboard": "tensorboard"}
    kinds = [option for option, package in there.items() if importlib.util.find_spec(package)]
    more = [*kinds, "--trajectory", "--compress", str(out / "s.yaml"), "-o", str(out)]
    assert compress_classifier.main(["-a", "mlp_bn_drop", *small, *more]) == 0
    return (out / "latest").resolve()


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_show_on_white_and_on_black(run, name):
    """Without a background, and drawn in colours that differ from both."""
    pytest.importorskip("matplotlib")
    pixels = read_image(str(run / f"{name}.png"), mode="RGB_ALPHA").float() / 255
    ink, alpha = pixels[:3], pixels[3]
    assert (alpha == 0).float().mean() > 0.5
    luminance = (ink * torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1, 1)).sum(0)[alpha == 1]
    assert luminance.min() > 0.2 and luminance.max() < 0.8
    drawing = (run / f"{name}.svg").read_text()
    assert not re.search(r"#000000|#ffffff", drawing)


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
