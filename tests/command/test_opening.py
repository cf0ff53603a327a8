"""The first lines of a training: what runs where, and what of the schedule is never reached."""

import pytest

import compress_classifier
from potstill.command.modes.policy_table import late
from potstill.compression import Window

SMALL = ["-a", "mlp_bn", "--limit-train", "64", "--limit-test", "20", "--limit-validation", "20", "-b", "32"]
SCHEDULE = """
pruners:
  l: {class: SparsityLevelParameterPruner, levels: {layers.1.weight: 0.5}}
  m: {class: SparsityLevelParameterPruner, levels: {layers.4.weight: 0.5}}
  n: {class: SparsityLevelParameterPruner, levels: {layers.4.weight: 0.5}}
policies:
  - {pruner: {instance_name: l}, starting_epoch: 5, ending_epoch: 9}
  - {pruner: {instance_name: m}, starting_minibatch: 1, ending_minibatch: 9}
  - {pruner: {instance_name: n}, starting_epoch: 0, ending_epoch: 1}
"""


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(SCHEDULE)

    def run(*arguments):
        assert compress_classifier.main([*SMALL, "-o", "runs", *arguments]) == 0
        return capsys.readouterr().out.splitlines()

    return run


def test_a_training_says_what_it_is(told, tmp_path):
    lines = told("--compress", "s.yaml", "--epochs", "1", "--device", "cpu")
    folder = (tmp_path / "runs" / "latest").readlink()
    start = f"trains mlp_bn on digits (64 images) for 1 epoch, on cpu; the run is in runs/{folder}"
    assert start in lines
    following = lines[lines.index(start) + 1 :]
    assert following[:2] == [
        "warning: l never acts: training ends before epoch 1",
        "warning: m is cut off: training ends before epoch 1",
    ]
    again = told("--resume-from", "runs/latest", "--epochs", "3", "--device", "cpu")
    assert "trains mlp_bn on digits (64 images) from epoch 1 to 3, on cpu; the run is in runs/latest" in again


@pytest.mark.parametrize(
    ("window", "minibatches", "remark"),
    [
        (Window.between(0, 3), 1, ""),
        (Window.between(2, 4), 1, "x is cut off: training ends before epoch 3"),
        (Window.at([3, 7]), 1, "x never acts: training ends before epoch 3"),
        (Window.between(0, 4, 3), 1, "x is cut off: training ends before epoch 3"),
        (Window.between(0, 5, 3), 2, "x is cut off: training ends before epoch 3"),
        (Window.between(0, 6, unit="minibatch"), 2, ""),
        (Window.between(0, 7, unit="minibatch"), 2, "x is cut off: training ends before epoch 3"),
        (Window.at([6], unit="minibatch"), 2, "x never acts: training ends before epoch 3"),
    ],
)
def test_what_comes_too_late(window, minibatches, remark):
    assert late("x", window, 3, minibatches) == remark


def test_an_untrained_network_is_warned_of_before_it_is_tested(told):
    warning = "warning: the network is not trained: --resume-from gives one that is"
    assert warning in told("-e")
    told("--epochs", "1")
    assert warning not in told("-e", "--resume-from", "runs/latest/best.pt")


def test_a_damaged_checkpoint_is_told_once(told, tmp_path):
    told("--epochs", "1")
    path = (tmp_path / "runs" / "latest").resolve() / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-100])
    lines = told("--resume-from", "runs/latest", "-e")
    stem = "runs/latest/checkpoint.pt"
    assert [line for line in lines if line.startswith("warning: ")] == [
        f"warning: {stem}: damaged: its end is missing; using {stem}.previous instead"
    ]
