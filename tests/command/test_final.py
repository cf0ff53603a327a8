"""Which network a run ends with, what it is called, and what is said of it."""

import csv
import json
import re

import pytest
import torch
from torch import nn

import compress_classifier
from potstill.command.cli.options import parse
from potstill.command.modes import _network
from potstill.command.run.best_epochs import BestEpochs, Score
from potstill.command.run.clock import Clock, span
from potstill.command.run.network_size import SizeMeter
from potstill.compression import CompressionScheduler, dict_config, load_checkpoint, sparsity_text

HALF = """
pruners:
  half: {class: L1RankedStructureParameterPruner, desired_sparsity: 0.5, weights: [layers.1.weight]}
policies:
  - {pruner: {instance_name: half}, epochs: [1]}
"""
NET = ["-a", "mlp", "--limit-train", "64", "--limit-test", "40", "--limit-validation", "40", "-b", "32"]


def train(folder, *more) -> object:
    folder.mkdir(exist_ok=True)
    (folder / "s.yaml").write_text(HALF)
    options = [*NET, "--epochs", "4", "--compress", str(folder / "s.yaml"), "-o", str(folder), *more]
    assert compress_classifier.main(options) == 0
    return folder / "latest"


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    return train(tmp_path_factory.mktemp("best"), "--final", "best", "--lr", "3")


def test_the_best_epoch_is_one_after_compression_and_its_weights_are_thinned(best):
    with (best / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    summary = json.loads((best / "summary.json").read_text())
    epoch = int(re.match(r"epoch (\d+), the most accurate", summary["network"])[1])
    assert epoch in (1, 2, 3)
    assert float(rows[epoch]["val_top1"]) == max(float(rows[n]["val_top1"]) for n in (1, 2, 3))
    dense = load_checkpoint(best / "best_final.pt")["state_dict"]["layers.1.weight"]
    kept = load_checkpoint(best / "thinned.pt")["state_dict"]["layers.1.weight"]
    assert torch.equal(dense[(dense != 0).any(1)], kept)


def test_zeros_gone_and_the_account_are_in_percent(best):
    summary = json.loads((best / "summary.json").read_text())
    dense, thinned = (summary[name]["parameters"] for name in ("dense", "thinned"))
    assert summary["gone"] == pytest.approx(100 * (1 - thinned / dense))
    (row,) = [row for row in summary["account"] if row["parameter"] == "layers.1.weight"]
    assert row["hidden (%)"] == 50
    assert row["removable"] == row["hidden"] == row["asked"]
    with (best / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["gone"]) == pytest.approx(summary["gone"])
    assert 0 < float(last["zeros"]) < float(last["gone"])


def test_the_last_is_said_to_be_the_last(tmp_path, capsys):
    folder = train(tmp_path, "--final", "last")
    assert json.loads((folder / "summary.json").read_text())["network"] == "epoch 3, the last"
    told = capsys.readouterr().out
    assert "the network is that of epoch 3, the last" in told
    assert re.search(r"epoch 2: .* zeros [\d.]+ %, gone [\d.]+ % \| \d+ s, \d+ s left", told)
    assert "asked and done, by policy and parameter:" in told


def test_a_finished_folder_exports_what_thinning_left_without_a_name(best, tmp_path):
    for given in (["--resume-from", str(best)], ["--exp-load-weights-from", str(best)]):
        model, example = _network(parse([*given, "--export-onnx", str(tmp_path / "m.onnx")]))
        shape = load_checkpoint(best / "thinned.pt")["state_dict"]["layers.1.weight"].shape
        assert model.get_parameter("layers.1.weight").shape == shape
        model(example)


def test_best_is_news_only_when_it_changes():
    scores = BestEpochs("top1")
    for epoch, top1 in enumerate([50.0, 60.0, 55.0]):
        scores.add(Score(epoch, top1, 90.0, 0.0, 10))
        assert [score.epoch for score in scores.news(1)] == ([epoch] if epoch < 2 else [])


def test_the_clock(monkeypatch):
    now = iter([0.0, 10.0, 10.0, 30.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    clock = Clock()
    clock.start()
    assert clock.told(10) == " | 10 s, 2 min left"
    assert clock.told(10) == ""
    clock.start()
    assert clock.told(0) == " | 20 s"
    assert span(9000) == "2.5 h"


def test_short_tables_leave_out_what_says_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[0] = 0
    text = sparsity_text(model)
    assert "2D (%)" in text  # 3D and Fine are the same here
    assert "Cols (%)" not in text
    assert "Rows (%)" not in text
    total = sum(p.numel() for p in model.parameters())
    assert f"zeros {100 * 27 / total:.2f} % of {total} parameters, mean " in text.splitlines()[-1]


def test_gone_counts_what_was_thinned_before():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    inputs, total = torch.randn(2, 3, 8, 8), sum(p.numel() for p in model.parameters())
    instance = {"class": "L1RankedStructureParameterPruner", "desired_sparsity": 0.5, "weights": ["0.weight"]}
    policy = {"pruner": {"instance_name": "half"}, "epochs": [0]}
    scheduler = dict_config(model, None, {"pruners": {"half": instance}, "policies": [policy]}, example_inputs=inputs)
    assert isinstance(scheduler, CompressionScheduler)
    meter = SizeMeter(scheduler)
    assert meter.measure().gone == 0
    scheduler.on_epoch_begin(0)
    would = meter.measure()
    scheduler.thin()
    assert meter.measure().gone == would.gone == pytest.approx(100 * (4 * 28 + 4 * 4 * 9) / total)
    assert meter.measure().zeros == 0
