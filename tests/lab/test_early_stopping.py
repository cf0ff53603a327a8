"""Early stopping in a run: the best weights come back, the reason is told, a resumed run ends alike."""

import csv
import os
import signal

import pytest
import torch

import compress_classifier
from potstill.command.monitors.early_stopping import EarlyStopping
from potstill.command.monitors.stopping_rules import Best, GeneralizationLoss
from potstill.compression import CompressionScheduler, load_checkpoint

BASE = ["--arch", "mlp", "--dataset", "digits", "--limit-train", "120", "--limit-test", "40", "-b", "40", "--lr", "0.5"]


def run(out, *more):
    return compress_classifier.main([*BASE, "-o", str(out), *more])


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def same_weights(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_network_of_the_lowest_error_comes_back_with_its_masks():
    model = torch.nn.Linear(3, 2)
    scheduler = CompressionScheduler(model)
    watch = EarlyStopping(Best(), model, scheduler)
    weights = []
    for epoch, error in enumerate([0.5, 0.2, 0.3]):
        with torch.no_grad():
            model.weight.fill_(epoch + 1)
        mask = torch.ones(2, 3)
        mask[0, epoch] = 0
        scheduler.masks.set("mine", "weight", mask)
        weights.append(model.weight.detach().clone())
        watch.after_epoch(epoch, 0.1, error)
    watch.restore_best()
    assert torch.equal(model.weight, weights[1])
    scheduler.masks.apply()
    assert torch.equal(model.weight, weights[1]), "the masks are those of epoch 1 too"
    assert str(watch) == (
        "early stopping: trained to the last epoch; restored the weights of epoch 1: lowest validation loss, 0.2000"
    )


def test_an_error_that_is_not_a_number_is_never_the_lowest():
    model = torch.nn.Linear(1, 1)
    watch = EarlyStopping(GeneralizationLoss(5), model, CompressionScheduler(model))
    for epoch, error in enumerate([0.5, float("nan")]):
        watch.after_epoch(epoch, 0.1, error)
    assert watch.best_epoch == 0
    assert "GL = inf % > 5 %" in watch.reason


def test_epochs_before_the_first_do_not_count():
    model = torch.nn.Linear(1, 1)
    watch = EarlyStopping(Best(), model, CompressionScheduler(model), first_epoch=2)
    for epoch, error in enumerate([0.1, 0.2, 0.5, 0.4]):
        watch.after_epoch(epoch, 0.1, error)
    assert watch.best_epoch == 3


def test_a_run_stops_tells_why_and_ends_with_the_best_weights(tmp_path, capsys):
    assert run(tmp_path, "--epochs", "30", "--early-stop", "GL:20") == 0
    folder = tmp_path / "latest"
    losses = [float(row["val_loss"]) for row in rows(folder)]
    above = [100 * (loss / min(losses[: t + 1]) - 1) > 20 for t, loss in enumerate(losses)]
    assert above.index(True) == len(losses) - 1 < 29
    best = losses.index(min(losses))
    told = capsys.readouterr().out
    assert "early stopping: GL = " in told
    assert f"restored the weights of epoch {best}: lowest validation loss, {min(losses):.4f}" in told

    assert run(tmp_path / "short", "--epochs", str(best + 1)) == 0
    expected = load_checkpoint(tmp_path / "short" / "latest" / "checkpoint.pt")["state_dict"]
    assert same_weights(load_checkpoint(folder / "thinned.pt")["state_dict"], expected)
    capsys.readouterr()
    assert compress_classifier.main(["--resume-from", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "no further: early stopping ended this run, on " in told
    assert "\nepoch " not in told, "a run that has stopped does not train on"
    assert same_weights(load_checkpoint(folder / "thinned.pt")["state_dict"], expected)


def test_a_resumed_run_stops_where_the_whole_one_did(tmp_path, monkeypatch):
    extra = ["--epochs", "30", "--early-stop", "GL:20"]
    assert run(tmp_path / "whole", *extra) == 0
    stepped = compress_classifier.Session.stepped

    def interrupt(session):
        stepped(session)
        if session.steps == 11:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(compress_classifier.Session, "stepped", interrupt)
        assert run(tmp_path / "parts", *extra) == 130
    assert compress_classifier.main(["--resume-from", str(tmp_path / "parts" / "latest")]) == 0
    whole, parts = (load_checkpoint(tmp_path / name / "latest" / "thinned.pt") for name in ("whole", "parts"))
    assert same_weights(whole["state_dict"], parts["state_dict"])
    for key in ("training", "validation", "reason", "first_epoch"):
        assert whole["early_stopping"][key] == parts["early_stopping"][key]


SCHEDULE = """
pruners:
  level: {class: SparsityLevelParameterPruner, levels: {layers.1.weight: 0.9}}
policies:
  - {pruner: {instance_name: level}, epochs: [LAST]}
"""


def test_networks_from_before_the_pruning_are_not_chosen(tmp_path):
    (tmp_path / "s.yaml").write_text(SCHEDULE.replace("LAST", "3"))
    assert run(tmp_path, "--epochs", "6", "--early-stop", "best", "--compress", str(tmp_path / "s.yaml")) == 0
    state = load_checkpoint(tmp_path / "latest" / "thinned.pt")
    assert state["early_stopping"]["first_epoch"] == 3
    assert len(state["early_stopping"]["validation"]) == 3
    best = state["early_stopping"]["best"]["state_dict"]["layers.1.weight"]
    assert int((best == 0).sum()) == int(0.9 * best.numel())


def test_pruning_up_to_the_last_epoch_leaves_nothing_to_choose_from(tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(SCHEDULE.replace("LAST", "5"))
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, "--epochs", "6", "--early-stop", "best", "--compress", str(tmp_path / "s.yaml"))
    assert caught.value.code == 2
    assert "the schedule changes the network until epoch 5, the last one" in capsys.readouterr().err
