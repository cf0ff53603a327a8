"""`--sweep`: runs from one dense network end as each would alone, can be killed, and are laid side by side."""

import csv
import json
import os
import shutil
import signal

import pytest
import torch

import compress_classifier
from potstill.command.compare import compare, front
from potstill.compression import load_checkpoint

POINTS = ("gates.target_sparsity=0.3", "gates.target_sparsity=0.5")
PRUNER = "pruners:\n  one: {class: SparsityLevelParameterPruner, levels: {layers.1.weight: 0.5}}\npolicies:\n"
SWEEP = ("--sweep", "gates.target_sparsity=0.3,0.5")


def contents(folder):
    """What a run came to: its checkpoint without what says where it lies, and its metrics."""
    state = load_checkpoint(folder / "checkpoint.pt")
    del state["options"]["compress"]
    return state, (folder / "metrics.csv").read_text()


def same(a, b):
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_points_end_as_they_would_alone(command, tmp_path, capsys):
    assert command(*SWEEP) == 0
    folder = tmp_path / "out" / "latest"
    told = capsys.readouterr().out
    dense = load_checkpoint(folder / "dense" / "checkpoint.pt")
    assert dense["epoch"] == 1 and list(dense["scheduler"]["policies"]) == ["step"]
    assert "begins afresh" not in told and "another than before" not in told
    (tmp_path / "s.yaml").write_text((tmp_path / "s.yaml").read_text().replace("0.4", "0.5"))
    assert command(out="alone") == 0
    assert all(map(same, contents(folder / POINTS[1]), contents(tmp_path / "alone" / "latest")))
    rows = list(csv.DictReader((folder / "sweep.csv").open()))
    assert [row["run"] for row in rows] == ["dense", *POINTS]
    for row, name in zip(rows, ("dense", *POINTS), strict=True):
        thinned = json.loads((folder / name / "summary.json").read_text())["thinned"]
        assert int(row["parameters"]) == thinned["parameters"] and int(row["MACs"]) == thinned["macs"]
        assert float(row["test top1 (%)"]) == thinned["top1"]
        assert float(row["validation top1 (%)"]) == thinned["val_top1"]
    assert list(compare([folder])["run"]) == [f"{folder.resolve().name}/{name}" for name in ("dense", *POINTS)]
    report = (folder / "report.html").read_text()
    for name in POINTS:
        assert f'href="{name.replace("=", "%3D")}/report.html"' in report and (folder / name / "report.html").exists()
    assert (folder / "sweep.png").stat().st_size > 1000 and (folder / "sweep.svg").exists()


def test_a_killed_sweep_goes_on(command, tmp_path, monkeypatch, capsys):
    assert command(*SWEEP, out="whole") == 0

    class Interrupt(compress_classifier.Watch):
        def loss_is_good(self, loss, parts):
            if (self.run.folder.path.name, self.run.epoch, self.run.minibatch) == (POINTS[1], 2, 0):
                os.kill(os.getpid(), signal.SIGINT)
            return super().loss_is_good(loss, parts)

    with monkeypatch.context() as patch:
        patch.setattr(compress_classifier, "Watch", Interrupt)
        assert command(*SWEEP) == 130
    folder = (tmp_path / "out" / "latest").resolve()
    assert f"go on with: compress-classifier --resume-from {folder.parent / folder.name}" in capsys.readouterr().out
    finished = [folder / name / file for name in ("dense", POINTS[0]) for file in ("summary.json", "checkpoint.pt")]
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in finished]
    assert not (folder / POINTS[1] / "summary.json").exists()
    assert command("--resume-from", str(folder)) == 0
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in finished] == before
    assert "from epoch 2, minibatch 1, to 4" in capsys.readouterr().out
    whole = tmp_path / "whole" / "latest"
    for name in ("dense", *POINTS):
        assert all(map(same, contents(folder / name), contents(whole / name)))
    assert command("--resume-from", str(folder), "--sweep", "gates.target_sparsity=0.3,0.4,0.5") == 0
    assert [row["run"] for row in csv.DictReader((folder / "sweep.csv").open())] == [
        "dense", POINTS[0], "gates.target_sparsity=0.4", POINTS[1]
    ]  # fmt: skip
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in finished] == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--sweep", "gatez.target_sparsity=0.3,0.5"], "there is no gatez in the schedule (did you mean gates?)"),
        (["--sweep", "gates.target_sparsitie=0.3"], "did you mean target_sparsity?"),
        (["--sweep", "gates.target_sparsity=0.3,7"], "gates.target_sparsity=7"),
        (["--sweep", "policies[0].starting_epoch=1,9"], "policies[0].starting_epoch=9"),
        (["--sweep", "gates.weights=[nothing]"], "nothing"),
        (["--sweep", "gates.target_sparsity"], "is not KEY=VALUE,VALUE,..."),
        ([*SWEEP, *SWEEP], "stands twice"),
        ([*SWEEP, "--dry-run"], "--sweep trains"),
        (["--no-test", "--confusion"], "which --no-test and --within leave alone"),
        (["--within", "1"], "--within needs one --sweep KEY=FROM,TO"),
        (["--sweep", "gates.target_sparsity=0.3", "--within", "1"], "with two numbers"),
        (["--sweep", "gates.target_sparsity=0.3,0.4,0.5", "--within", "1"], "with two numbers"),
    ],
)
def test_what_is_wrong_is_said_before_anything_trains(command, tmp_path, capsys, arguments, told):
    assert command(*arguments) == 2
    said = capsys.readouterr()
    assert told in said.err and "Traceback" not in said.err and "epoch 0" not in said.out
    assert not (tmp_path / "out").exists()


def test_each_value_that_does_not_fit_is_said_with_its_mistake(command, capsys):
    # The first is out of reach (one Linear is not half of the network), which only a built schedule tells.
    assert command("--sweep", "gates.weights=[layers.4.weight],[layers.1.weigth],[layers.1.weight]") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "gates.weights=['layers.4.weight']: policies[0]" in lines[0] and "out of reach" in lines[0]
    assert "gates.weights=['layers.1.weigth']: regularizers.gates.weights[0]" in lines[1]


def test_a_sweep_goes_on_as_it_began(command, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(PRUNER + "  - {pruner: {instance_name: one}, epochs: [1]}\n")
    level = ("--sweep", "one.levels.layers.1.weight=0.5")
    assert command(*level) == 0
    folder = tmp_path / "out" / "latest"
    for more, told in (
        (["--lr", "0.5"], "a sweep goes on as it began: leave out --lr"),
        (["--sweep", "policies[0].epochs=[0],[1]"], "part from the dense network at epoch 1, and with these values at"),
    ):
        assert command("--resume-from", str(folder), *more) == 2
        assert told in capsys.readouterr().err


def test_nothing_in_a_strangers_sweep_is_read_through_links(command, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(PRUNER + "  - {pruner: {instance_name: one}, epochs: [1]}\n")
    assert command("--sweep", "one.levels.layers.1.weight=0.5") == 0
    folder = tmp_path / "out" / "latest"
    (point,) = (path for path in folder.iterdir() if "=" in path.name)
    for path in (folder / "dense" / "checkpoint.pt", point / "thinned.pt", folder / "sweep.json"):
        away = path.rename(tmp_path / "away")
        path.symlink_to(away)
        assert command("--resume-from", str(folder)) == 2
        assert f"{path.name}: is a link or no regular file: remove it" in capsys.readouterr().err
        os.replace(away, path)


def test_networks_of_other_images_are_not_compared(command, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(PRUNER + "  - {pruner: {instance_name: one}, epochs: [1]}\n")
    assert command("--sweep", "one.levels.layers.1.weight=0.5") == 0
    folder = tmp_path / "out" / "latest"
    other = ["-a", "symmetry", "--dataset", "symmetry", "--epochs", "0", "-o", str(tmp_path / "other")]
    assert compress_classifier.main(other) == 0
    (point,) = (path for path in folder.iterdir() if "=" in path.name)
    shutil.copy(tmp_path / "other" / "latest" / "checkpoint.pt", point / "thinned.pt")
    capsys.readouterr()
    assert command("--resume-from", str(folder)) == 2
    assert "are of images of different shapes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"departs": -1}, {"departs": None}, {"sweep": "x"}, {"sweep": ["x"]}, {"within": "1"}, {"sweep_runs": 0},
        {"sweep_jobs": 1.5}, {"options": []}, {"options": {"lr": "x"}}, {"more": 1},
    ],
)  # fmt: skip
def test_a_damaged_record_is_said_in_one_line(command, tmp_path, capsys, change):
    sound = {"options": {}, "departs": 1, "sweep": [SWEEP[1]], "within": None, "sweep_runs": 8, "sweep_jobs": 1}
    (tmp_path / "sweep.json").write_text(json.dumps({**sound, **change}))
    assert command("--resume-from", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert "sweep.json" in said and said.count("\n") == 1 and "Error" not in said


def test_runs_that_compress_from_the_start_begin_untrained(command, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(PRUNER + "  - {pruner: {instance_name: one}, epochs: [0, 1]}\n")
    assert command("--sweep", "one.levels.layers.1.weight=0.5") == 0
    folder = tmp_path / "out" / "latest"
    assert "runs begin untrained; dense is trained to compare with" in capsys.readouterr().out
    assert load_checkpoint(folder / "dense" / "checkpoint.pt")["epoch"] == 2
    assert json.loads((folder / "dense" / "summary.json").read_text())["zeros"] == 0
    assert command(out="alone") == 0
    (point,) = folder.glob("one*")
    assert all(map(same, contents(point), contents(tmp_path / "alone" / "latest")))


def test_the_front_is_what_nothing_beats():
    points = [(5, 9.0), (3, 8.0), (4, 8.0), (1, 2.0), (2, None), (6, 9.0), (3, 7.0), (3, 8.0)]
    known = [place for place, (_, top1) in enumerate(points) if top1 is not None]
    beaten = {
        a
        for a in known
        for b in known
        if points[b] != points[a] and points[b][0] <= points[a][0] and points[b][1] >= points[a][1]
    }
    assert sorted(front(points)) == [place for place in known if place not in beaten]
    assert front(points) == [3, 1, 7, 0]
