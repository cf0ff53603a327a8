"""`--greedy`: down to its goal, thinned and proven; interrupted at any trial it ends with the same network."""

import csv
import json
import shutil

import pytest
import torch

import compress_classifier
from potstill.command.greedy import mode
from potstill.command.greedy.record import FILE
from potstill.command.run import size_report
from potstill.compression import load_checkpoint
from potstill.models import create_model
from potstill.thinning import count_macs, load

BASE = ["-a", "simplenet_cifar", "--dataset", "digits", "--limit-train", "60", "-b", "20", "--lr", "0.02"]
GOAL = ["--greedy", "--greedy-target-density", "0.75", "--greedy-pruning-step", "0.34"]


@pytest.fixture(autouse=True, scope="module")
def short_measurements():
    """Latencies are not looked at here."""
    before, size_report.SECONDS = size_report.SECONDS, 0.01
    yield
    size_report.SECONDS = before


def run(out, *more):
    assert compress_classifier.main([*BASE, *GOAL, "-o", str(out), *more]) == 0
    return out / "latest"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run(tmp_path_factory.mktemp("greedy"))


def same(first, second):
    for name in ("greedy.csv", FILE):
        assert (first / name).read_text() == (second / name).read_text()
    mine, theirs = (load_checkpoint(folder / "checkpoint.pt")["state_dict"] for folder in (first, second))
    assert mine.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def test_it_stops_at_the_goal_and_the_thinned_file_has_that_size(done):
    rows = list(csv.DictReader((done / "greedy.csv").open()))
    densities = [float(row["density"]) for row in rows]
    assert densities == sorted(densities, reverse=True) and densities[-1] <= 0.75 < densities[-2]
    thinned = load(create_model("simplenet_cifar"), done / "thinned.safetensors")
    images = torch.randn(1, 3, 32, 32)
    assert count_macs(thinned, images) == int(rows[-1]["macs"])
    assert int(rows[-1]["macs"]) / count_macs(create_model("simplenet_cifar"), images) == pytest.approx(densities[-1])
    assert json.loads((done / FILE).read_text())["tried"] == []
    names = {row["name"] for row in rows}
    assert names <= {"conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"}


def test_it_begins_with_a_trained_checkpoint_but_not_in_the_folder_of_a_training(tmp_path, done, capsys):
    assert load_checkpoint(done / "checkpoint.pt")["epoch"] > 0
    command = [*BASE, "--greedy", "--greedy-target-density", "0.99", "-o", str(tmp_path)]
    assert compress_classifier.main([*command, "--resume-from", str(done / "checkpoint.pt")]) == 0
    assert len(list(csv.DictReader((tmp_path / "latest" / "greedy.csv").open()))) >= 1
    training = shutil.copytree(done, tmp_path / "training")
    (training / FILE).unlink()
    with pytest.raises(SystemExit):
        compress_classifier.main([*command, "--resume-from", str(training)])
    assert "the run is no greedy one: --resume-from its checkpoint.pt" in capsys.readouterr().err


@pytest.mark.parametrize("when", [2, 6])
def test_interrupted_and_resumed_it_ends_with_the_same_network(tmp_path, monkeypatch, done, when):
    attempts = []
    plain = mode._Search._try

    def interrupted(self, graph, candidate):
        attempts.append(candidate.name)
        if len(attempts) == when:
            raise KeyboardInterrupt
        return plain(self, graph, candidate)

    monkeypatch.setattr(mode._Search, "_try", interrupted)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path)
    assert stop.value.code == 130
    monkeypatch.setattr(mode._Search, "_try", plain)
    assert compress_classifier.main(["--resume-from", str(tmp_path / "latest")]) == 0
    same(done, tmp_path / "latest")


def test_killed_between_its_two_files(tmp_path, monkeypatch, done):
    plain = mode._Search._enter

    def killed(self, best):
        monkeypatch.setattr(mode._Search, "_enter", plain)
        raise KeyboardInterrupt

    monkeypatch.setattr(mode._Search, "_enter", killed)
    with pytest.raises(SystemExit):
        run(tmp_path)
    assert compress_classifier.main(["--resume-from", str(tmp_path / "latest")]) == 0
    same(done, tmp_path / "latest")


def test_what_is_zero_stays_zero(tmp_path, monkeypatch):
    """An imported mask holds while candidates are fine-tuned."""
    model = create_model("simplenet_cifar")
    mask = (torch.rand(120, 400, generator=torch.Generator().manual_seed(0)) > 0.9).float()
    contents = {"arch": "simplenet_cifar", "epoch": 0, "state_dict": model.state_dict()}
    torch.save(contents | {"compression_sched": {"masks_dict": {"fc1.weight": mask}}}, tmp_path / "a.pth.tar")
    assert compress_classifier.main(["--import-distiller", str(tmp_path / "a.pth.tar"), "-o", str(tmp_path)]) == 0
    start = ["--resume-from", str(tmp_path / "a_imported.pt"), "--reset-optimizer"]
    latest = run(tmp_path, *start, "--greedy-target-density", "0.9", "--greedy-finetuning-policy", "linear-grow")
    weight = load_checkpoint(latest / "checkpoint.pt")["state_dict"]["fc1.weight"]
    assert int(weight.count_nonzero()) <= int(mask.sum())


def test_latency_is_a_goal_too(tmp_path, monkeypatch):
    times = iter([1.0, 0.95, 0.6, 0.5, 0.4])
    monkeypatch.setattr(mode, "latencies", lambda models, example: {"now": {"1": {"median": next(times)}}})
    command = [*BASE, "--greedy", "--greedy-target-latency", "0.7", "--greedy-ft-epochs", "0", "-o", str(tmp_path)]
    assert compress_classifier.main(command) == 0
    rows = list(csv.DictReader((tmp_path / "latest" / "greedy.csv").open()))
    assert [float(row["latency"]) for row in rows] == [0.95, 0.6]


def test_a_goal_is_needed_and_a_strange_record_is_refused(tmp_path, done, capsys):
    with pytest.raises(SystemExit):
        compress_classifier.main([*BASE, "--greedy"])
    assert "--greedy needs a size to stop at" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compress_classifier.main([*BASE, *GOAL, "--compress", "l0_none"])
    assert "leave --compress out" in capsys.readouterr().err
    kept = (done / FILE).read_text()
    for text, message in ((kept.replace('"steps"', '"stops"'), "is missing"), ('{"steps": 3', "does not fit")):
        (done / FILE).write_text(text)
        with pytest.raises(SystemExit):
            compress_classifier.main(["--resume-from", str(done)])
        assert message in capsys.readouterr().err
    (done / FILE).write_text(kept)


def test_a_goal_out_of_reach_is_said(tmp_path, capsys):
    command = [*BASE, "--greedy", "--greedy-target-density", "0.0001", "--greedy-pruning-step", "1"]
    assert compress_classifier.main([*command, "--greedy-ft-epochs", "0", "-o", str(tmp_path)]) == 0
    assert "the goal is not reached" in capsys.readouterr().out
