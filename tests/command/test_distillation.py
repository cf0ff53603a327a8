"""Distillation from the command line: on a few digits, with a dense and with a thinned teacher."""

import csv
import os
import re
import signal
from types import SimpleNamespace

import pytest
import torch

import compress_classifier
from potstill.command.cli.options import parse
from potstill.command.run import size_report
from potstill.command.run.prepare import prepare
from potstill.command.run.teachers import Teachers
from potstill.compression import load_checkpoint, save_checkpoint
from potstill.models import create_model
from potstill.thinning import resize_to

from .test_resume import assert_same

STUDENT = ["-a", "mlp_bn_drop", "--limit-train", "96", "--limit-test", "30", "-b", "32", "--lr", "0.05"]
THINS = """
pruners:
  filters: {class: L1RankedStructureParameterPruner, desired_sparsity: 0.5, weights: [conv1.weight]}
policies:
  - {pruner: {instance_name: filters}, epochs: [0]}
"""
TAUGHT = """
extensions:
  lessons: {{class: KnowledgeDistillationPolicy, arch: {arch}, checkpoint: {path}, temperature: 4, distill_weight: 0.7}}
policies:
  - {{extension: {{instance_name: lessons}}, starting_epoch: 0, ending_epoch: 3}}
"""


@pytest.fixture(scope="module", autouse=True)
def _no_time_for_latencies():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(size_report, "SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Run folders of a perceptron and of a thinned convolutional network."""
    out = tmp_path_factory.mktemp("teachers")
    (out / "thins.yaml").write_text(THINS)
    thins = ["-a", "simplenet_cifar", *STUDENT[2:], "--compress", str(out / "thins.yaml")]
    for name, arguments in (("mlp", ["-a", "mlp_bn", *STUDENT[2:]]), ("thin", thins)):
        assert compress_classifier.main([*arguments, "--epochs", "1", "-o", str(out / name)]) == 0
    return SimpleNamespace(mlp=out / "mlp" / "latest", thin=out / "thin" / "latest" / "thinned.pt")


@pytest.fixture
def taught(teachers):
    """Options of a run with the perceptron as teacher."""
    lessons = ["--kd-teacher", "mlp_bn", "--kd-resume", str(teachers.mlp), "--kd-temp", "4", "--kd-dw", "0.7"]
    return [*STUDENT, *lessons, "--epochs", "3"]


def run(arguments, out, *more):
    assert compress_classifier.main([str(argument) for argument in (*arguments, "-o", out, *more)]) == 0
    return out / "latest"


def refusal(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        compress_classifier.main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.startswith("compress-classifier: ") and said.count("\n") == 1, said
    return said.removeprefix("compress-classifier: ").strip()


def test_run_with_a_teacher(taught, teachers, tmp_path):
    before = (teachers.mlp / "checkpoint.pt").read_bytes()
    folder = run(taught, tmp_path)
    assert (teachers.mlp / "checkpoint.pt").read_bytes() == before
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    parts = [float(row["distillation_loss"]) for row in rows]
    assert len(parts) == 3 and parts[0] > parts[-1] > 0
    checkpoint = load_checkpoint(folder / "checkpoint.pt")
    bare = create_model("mlp_bn_drop", 10, 1)
    assert list(checkpoint["state_dict"]) == list(bare.state_dict())
    assert len(checkpoint["optimizer"]["state"]) == len(list(bare.parameters()))
    assert list(checkpoint["scheduler"]["policies"]["--kd-teacher"]) == ["teacher"]
    assert not (folder / "schedule.yaml").exists()


def test_a_schedule_says_the_same(taught, teachers, tmp_path):
    (tmp_path / "taught.yaml").write_text(TAUGHT.format(arch="mlp_bn", path=teachers.mlp))
    scheduled = [*STUDENT, "--compress", tmp_path / "taught.yaml"]
    folders = run(taught, tmp_path / "a"), run(scheduled, tmp_path / "b")
    by_option, by_schedule = (load_checkpoint(folder / "checkpoint.pt") for folder in folders)
    for part in ("state_dict", "optimizer", "random", "rows", "meter"):
        assert_same(by_option[part], by_schedule[part], part)


def test_the_teacher_takes_part_from_its_first_epoch_on(taught, tmp_path):
    rows = list(csv.DictReader((run([*taught, "--kd-start-epoch", "2"], tmp_path) / "metrics.csv").open()))
    assert [bool(row["distillation_loss"]) for row in rows] == [False, False, True]


def test_the_student_starts_as_without_a_teacher(taught, tmp_path):
    with_, without = (prepare(parse([*a, "-o", str(tmp_path)])) for a in (taught, STUDENT))
    random = torch.get_rng_state()
    with_ = prepare(parse([*taught, "-o", str(tmp_path)]))
    assert torch.equal(torch.get_rng_state(), random)
    for session in (with_, without):
        session.folder.close()
    assert_same(with_.model.state_dict(), without.model.state_dict())


def test_a_thinned_teacher_answers_as_it_did(teachers):
    teacher = Teachers(10, (3, 32, 32))("simplenet_cifar", str(teachers.thin), False)
    weights = load_checkpoint(teachers.thin)["state_dict"]
    assert weights["conv1.weight"].shape[0] == teacher.conv1.out_channels == 3
    bare = create_model("simplenet_cifar")
    resize_to(bare, weights).load_state_dict(weights)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(teacher(images), bare(images))


def test_a_thinned_teacher_teaches(teachers, tmp_path):
    lessons = ["--kd-teacher", "simplenet_cifar", "--kd-resume", teachers.thin]
    folder = run(["-a", "simplenet_cifar", *STUDENT[2:], *lessons, "--epochs", "1"], tmp_path)
    assert load_checkpoint(folder / "checkpoint.pt")["state_dict"]["conv1.weight"].shape[0] == 6


@pytest.mark.parametrize("moment", [(1, 0), (2, 1)])
def test_interrupted_and_resumed_equals_uninterrupted(taught, tmp_path, monkeypatch, moment):
    whole = run(taught, tmp_path / "whole")

    class Interrupt(compress_classifier.Watch):
        def __init__(self, run, images):
            super().__init__(run, images)
            if (run.epoch, run.minibatch) == moment:
                os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(compress_classifier, "Watch", Interrupt)
        assert compress_classifier.main([*taught, "-o", str(tmp_path / "parts")]) == 130
    assert compress_classifier.main(["--resume-from", str(tmp_path / "parts" / "latest")]) == 0
    states = [load_checkpoint(folder / "checkpoint.pt") for folder in (whole, tmp_path / "parts" / "latest")]
    assert_same(*states)


def test_another_teacher_on_a_resume(taught, teachers, tmp_path, capsys):
    folder = run([*taught[:-1], "1"], tmp_path / "run")
    changed = load_checkpoint(teachers.mlp / "checkpoint.pt")
    changed["state_dict"]["layers.1.weight"][0, 0] += 1
    save_checkpoint(tmp_path / "other.pt", {k: v for k, v in changed.items() if k != "format"})
    said = refusal(["--resume-from", folder, "--kd-resume", tmp_path / "other.pt", "--epochs", "2"], capsys)
    assert said.startswith(f"{folder}: scheduler: policies.--kd-teacher: the teacher is not the one that this run ")
    anew = ["--resume-from", folder, "--reset-optimizer", "--kd-resume", tmp_path / "other.pt", "--epochs", "1"]
    assert compress_classifier.main([str(argument) for argument in anew]) == 0


def test_latest_means_the_run_of_now(teachers):
    options = parse(["--kd-teacher", "mlp_bn", "--kd-resume", str(teachers.mlp)])
    assert options.distillation.kd_resume == teachers.mlp.resolve() != teachers.mlp


def test_what_needs_no_teacher_runs_without_its_file(taught, teachers, tmp_path, capsys):
    moved = tmp_path / "teacher.pt"
    moved.write_bytes((teachers.mlp / "checkpoint.pt").read_bytes())
    taught[taught.index("--kd-resume") + 1] = str(moved)
    folder = run(taught, tmp_path / "run")
    moved.unlink()
    for mode in ("--evaluate", "--thinnify"):
        assert compress_classifier.main([mode, "--resume-from", str(folder)]) == 0
    said = refusal(["--resume-from", folder, "--epochs", "4"], capsys)
    assert said == f"--kd-teacher mlp_bn: {moved}: no such checkpoint"


def test_dry_run_lists_the_teacher(taught, tmp_path, capsys):
    assert compress_classifier.main([*taught, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"extension \| --kd-teacher *\| KnowledgeDistillationPolicy *\| epochs 0-2 ", told), told
    (tmp_path / "taught.yaml").write_text(TAUGHT.format(arch="mlp_bn", path=tmp_path / "later.pt"))
    assert compress_classifier.main([*STUDENT, "--compress", str(tmp_path / "taught.yaml"), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "lessons" in told
    assert f"warning: the teacher's checkpoint {tmp_path / 'later.pt'} does not exist yet" in told


def test_the_dense_network_is_measured_before_pruning_not_before_lessons(taught, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(
        "pruners: {half: {class: SparsityLevelParameterPruner, levels: {layers.1.weight: 0.5}}}\n"
        "policies: [{pruner: {instance_name: half}, epochs: [1]}]\n"
    )
    run([*taught, "--compress", tmp_path / "s.yaml"], tmp_path / "run")
    assert "dense network before compression: test Top1" in capsys.readouterr().out


def test_a_teacher_of_other_images_is_warned_about(taught, tmp_path, capsys):
    run([*taught[:-1], "1", "--no-normalise"], tmp_path)
    assert "was trained with normalise = True, the student has False" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kd-temp", "3"], "--kd-temp needs --kd-teacher, the teacher's network"),
        (["--kd-teacher", "mlp_bm"], "argument --kd-teacher: no network 'mlp_bm' (did you mean mlp_bn"),
        (["--kd-teacher", "list"], "--kd-teacher takes the name of a network; --arch list names all"),
        (["--kd-teacher", "mlp"], "give exactly one of --kd-resume PATH and --kd-pretrained"),
        (["--kd-teacher", "mlp", "--kd-resume", "x", "--kd-pretrained"], "give exactly one of --kd-resume PATH and"),
        (["--kd-teacher", "mlp", "--kd-temp", "0"], "argument --kd-temperature/--kd-temp: 0 is not a number above 0"),
        (["--kd-teacher", "mlp", "--kd-dw=-1"], "argument --kd-distill-wt/--kd-dw: -1 is not a number of 0 or more"),
        (["--kd-teacher", "mlp", "--kd-tw", "1"], "--kd-teacher-wt: the teacher is frozen: its loss must have weight"),
        (["--kd-teacher", "mlp", "--kd-dw", "0", "--kd-sw", "0"], "--kd-student-wt are both 0: nothing would be learn"),
    ],
)
def test_options_that_do_not_fit_together(options, said, capsys):
    assert said in refusal([*STUDENT, *options], capsys)


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (["mlp_bn", "nowhere.pt"], "--kd-teacher mlp_bn: {cwd}/nowhere.pt: no such checkpoint"),
        (["mlp", "{mlp}"], "--kd-teacher mlp: {file} is a checkpoint of mlp_bn, not of mlp"),
        (["simplenet_cifar", "{thin}"], "the teacher {thin} takes images of [3, 32, 32], the student of [1, 28, 28]"),
        (["mlp_bn", "{three}"], "--kd-teacher mlp_bn: the teacher {three} knows 3 classes, the student 10"),
        (["mlp_bn", "{text}"], "--kd-teacher mlp_bn: {text}: not a checkpoint of tensors and plain data"),
    ],
)
def test_teachers_that_do_not_fit(teachers, tmp_path, monkeypatch, capsys, teacher, said):
    monkeypatch.chdir(tmp_path)
    contents = load_checkpoint(teachers.mlp / "checkpoint.pt")
    save_checkpoint(tmp_path / "three.pt", {**contents, "num_classes": 3})
    (tmp_path / "text.pt").write_text("text")
    places = {name: tmp_path / f"{name}.pt" for name in ("three", "text")}
    places |= {"mlp": teachers.mlp, "file": teachers.mlp.resolve() / "checkpoint.pt"}
    places |= {"cwd": tmp_path, "thin": teachers.thin.resolve()}
    arch, path = (part.format(**places) for part in teacher)
    found = refusal([*STUDENT, "--epochs", "1", "--kd-teacher", arch, "--kd-resume", path], capsys)
    assert said.format(**places) in found
    if path != "nowhere.pt":  # a schedule says the same, with its line
        (tmp_path / "s.yaml").write_text(TAUGHT.format(arch=arch, path=path))
        found = refusal([*STUDENT, "--compress", tmp_path / "s.yaml"], capsys)
        assert found.startswith(f"{tmp_path / 's.yaml'}:3: extensions.lessons: ")


def test_a_schedule_with_an_unknown_network(tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(TAUGHT.format(arch="mlp_bm", path="x.pt"))
    said = refusal([*STUDENT, "--compress", tmp_path / "s.yaml"], capsys)
    assert said.startswith(f"{tmp_path / 's.yaml'}:3: extensions.lessons: no model is called 'mlp_bm' (did you mean m")
    refusal([*STUDENT, "--compress", tmp_path / "s.yaml", "--dry-run"], capsys)


def test_pretrained_weights_know_a_thousand_classes(tmp_path, capsys):
    said = refusal(["-a", "resnet18", *STUDENT[2:], "--kd-teacher", "resnet50", "--kd-pretrained"], capsys)
    assert said.startswith("--kd-teacher resnet50: the pretrained resnet50 knows ImageNet's 1000 classes, the student")


def test_times_that_cannot_be(taught, tmp_path, capsys):
    said = refusal([*taught, "--kd-start-epoch", "3"], capsys)
    assert said == "--kd-start-epoch 3: training ends before, at epoch 3"
    (tmp_path / "s.yaml").write_text(
        "lr_schedulers: {lr: {class: StepLR, step_size: 1}}\n"
        "policies: [{lr_scheduler: {instance_name: lr}, minibatches: [1]}]\n"
    )
    said = refusal([*taught[:-2], "--compress", tmp_path / "s.yaml"], capsys)
    assert said == "--kd-teacher: the schedule counts minibatches: say with --epochs where training ends"
