"""Every flag of Distiller's `compress_classifier.py` is in the table of `docs/distiller.md` and does what that says."""

import re
from pathlib import Path

import pytest
import torch

import compress_classifier
from potstill.command.cli.distiller_options import REFUSED
from potstill.command.cli.options import parse
from potstill.command.run import size_report
from potstill.command.run.prepare import prepare
from potstill.compression import load_checkpoint
from potstill.models import create_model

ROWS = re.findall(
    r"^\| ((?:`-[^|]*)) \| (same|deviates|refused|no effect) \|",
    (Path(__file__).parents[2] / "docs" / "distiller.md").read_text(encoding="utf-8").split("## Command line")[1],
    re.MULTILINE,
)
TABLE = {flag: status for flags, status in ROWS for flag in re.findall(r"`(-[^`]+)`", flags)}
VALUES = {
    "--arch -a": ["resnet56_cifar"], "--workers -j": ["2"], "--epochs": ["3"], "--batch-size -b": ["8"],
    "--learning-rate --lr": ["0.1"], "--momentum": ["0.8"], "--weight-decay --wd": ["0"], "--print-freq -p": ["50"],
    "--verbose -v": [], "--resume-from": ["x.pt"], "--resume": ["x.pt"], "--exp-load-weights-from": ["x.pt"],
    "--reset-optimizer": [], "--pretrained": [], "--evaluate -e": [],
    "--activation-stats --act-stats": ["train", "valid", "test"], "--activation-histograms --act-hist": ["0.1"],
    "--masks-sparsity": [], "--param-hist": [], "--summary": ["png_w_params"], "--export-onnx": [],
    "--compress": ["x.yaml"], "--sense": ["filter"], "--sense-range": ["0", "0.5", "0.1"], "--deterministic --det": [],
    "--seed": ["7"], "--gpus": ["0,1"], "--cpu": [], "--name -n": ["mine"], "--out-dir -o": ["logs"],
    "--validation-split --valid-size --vs": ["0"], "--effective-train-size --etrs": ["0.1"],
    "--effective-valid-size --evs": ["0.1"], "--effective-test-size --etes": ["0.1"], "--confusion": [],
    "--num-best-scores": ["3"], "--load-serialized": [], "--thinnify": ["--resume-from", "x.pt"],
    "--save-untrained-model": [], "--greedy": ["--greedy-target-density", "0.5"], "--greedy-ft-epochs": ["2"],
    "--greedy-target-density": ["0.5"], "--greedy-pruning-step": ["0.1"],
    "--greedy-finetuning-policy": ["linear-grow"], "--earlyexit_lossweights": ["0.1"],
    "--earlyexit_thresholds": ["1.2"], "--kd-teacher": ["resnet56_cifar", "--kd-resume", "t.pt"],
    "--kd-pretrained": ["--kd-teacher", "resnet18"], "--kd-resume": ["t.pt", "--kd-teacher", "resnet56_cifar"],
    "--kd-temperature --kd-temp": ["2"], "--kd-distill-wt --kd-dw": ["0.4"], "--kd-student-wt --kd-sw": ["0.6"],
    "--kd-teacher-wt --kd-tw": ["0"], "--kd-start-epoch": ["1"],
}  # fmt: skip
"""The flags, as its parser declares them, each with values that it took; those of quantization and AMC: `REFUSED`."""
FLAGS = {flag: values for flags, values in VALUES.items() for flag in flags.split()}
FLAGS |= {flag: ["1"] for flags in REFUSED for flag in flags.split()}


@pytest.fixture(autouse=True, scope="module")
def short_measurements():
    """Latencies are not looked at here."""
    before, size_report.SECONDS = size_report.SECONDS, 0.01
    yield
    size_report.SECONDS = before


def test_the_table_has_all_flags_and_no_other():
    assert TABLE.keys() == FLAGS.keys()
    assert {flag for flag, status in TABLE.items() if status == "refused"} == {f for k in REFUSED for f in k.split()}


@pytest.mark.parametrize("flag", FLAGS)
def test_each_flag_is_taken_or_refused_with_a_way_out(flag, capsys):
    kd = ["--kd-teacher", "resnet56_cifar", "--kd-resume", "t.pt"] if flag.startswith("--kd") else []
    arguments = [flag, *FLAGS[flag], *(kd if "--kd-teacher" not in [flag, *FLAGS[flag]] else [])]
    if TABLE[flag] == "refused":
        with pytest.raises(SystemExit) as stop:
            parse(arguments)
        said = capsys.readouterr().err
        reason = next(reason for flags, reason in REFUSED.items() if flag in flags.split())
        assert stop.value.code == 2 and f"{flag}: {reason}" in said and said.count("\n") == 1
    else:
        parse(arguments)


def test_what_has_no_effect_is_told(caplog):
    with caplog.at_level("INFO"):
        options = parse(["--load-serialized", "--param-hist"])
    assert "--load-serialized changes nothing" in caplog.text and options.output.tensorboard


def test_networks_with_early_exits_are_refused_with_a_way_out(capsys):
    with pytest.raises(SystemExit):
        parse(["-a", "resnet20_cifar_earlyexit"])
    assert "networks with early exits are not here: --kd-teacher" in capsys.readouterr().err


def test_one_small_run_shows_and_keeps_what_is_asked(tmp_path, capsys):
    command = ["-a", "simplenet_cifar", "--dataset", "digits", "--limit-train", "60", "--limit-test", "40"]
    more = ["--etrs", "0.5", "--evs", "0.5", "--epochs", "2", "-b", "16", "-o", str(tmp_path), "--confusion"]
    asked = ["--save-untrained-model", "--act-stats", "train", "test", "--mean", "0.5", "--std", "0.5"]
    assert compress_classifier.main([*command, *more, *asked]) == 0
    said = capsys.readouterr().out
    run = tmp_path / "latest"
    assert "Right (%)" in said and (run / "activations_train.csv").exists() and (run / "activations_test.csv").exists()
    assert not (run / "activations_valid.csv").exists()
    untrained, trained = load_checkpoint(run / "untrained.pt"), load_checkpoint(run / "checkpoint.pt")
    torch.manual_seed(0)
    fresh = create_model("simplenet_cifar")
    assert all(torch.equal(untrained["state_dict"][name], tensor) for name, tensor in fresh.state_dict().items())
    assert untrained["epoch"] == 0 and not torch.equal(trained["state_dict"]["fc3.bias"], fresh.fc3.bias)
    assert trained["mean"] == [0.5] * 3 and trained["std"] == [0.5] * 3
    assert compress_classifier.main(["--resume-from", str(run), "--epochs", "3"]) == 0
    assert load_checkpoint(run / "checkpoint.pt")["options"]["effective_train_size"] == 0.5


def test_an_imported_network_sees_images_as_distiller_normalised_them(tmp_path, capsys):
    model = create_model("simplenet_cifar")
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"arch": "simplenet_cifar", "epoch": 4, "state_dict": state}, tmp_path / "a.pth.tar")
    assert compress_classifier.main(["--import-distiller", str(tmp_path / "a.pth.tar"), "-o", str(tmp_path)]) == 0
    assert "normalised by mean 0.5,0.5,0.5 and deviation 0.5,0.5,0.5, as Distiller did" in capsys.readouterr().out
    start = ["-a", "simplenet_cifar", "--dataset", "digits", "-o", str(tmp_path)]
    for given, mean in (([], 0.5), (["--mean", "0.25"], 0.25)):
        command = [*start, "--resume-from", str(tmp_path / "a_imported.pt"), "--reset-optimizer", *given]
        session = prepare(parse(command))
        session.folder.discard()
        assert session.data.mean == (mean,) * 3 and session.data.std == (0.5,) * 3
    session = prepare(parse([*start, "--exp-load-weights-from", str(tmp_path / "a_imported.pt")]))
    session.folder.discard()
    assert session.data.mean == (0.5,) * 3
    session = prepare(parse(start))
    session.folder.discard()
    assert session.data.mean != (0.5,) * 3


def test_statistics_given_to_the_import_are_kept(tmp_path, capsys):
    torch.save(create_model("simplenet_cifar").state_dict(), tmp_path / "a.pt")
    command = ["-a", "simplenet_cifar", "--import-checkpoint", str(tmp_path / "a.pt"), "-o", str(tmp_path)]
    assert compress_classifier.main([*command, "--mean", "0.4,0.5,0.6", "--std", "0.25"]) == 0
    said = capsys.readouterr().out
    assert "simplenet_cifar, 0 masks" in said and "mean 0.4,0.5,0.6 and deviation 0.25,0.25,0.25\n" in said
    imported = load_checkpoint(tmp_path / "a_imported.pt")
    assert imported["mean"] == [0.4, 0.5, 0.6] and imported["std"] == [0.25] * 3
    for wrong, message in (
        (["--mean=1,2"], "--mean has 2 numbers"),
        (["--std=0"], "--std is of numbers above 0"),
        (["-a", "resnet20_cifar"], "the file names no network: --arch does"),
    ):
        with pytest.raises(SystemExit):
            compress_classifier.main([*command, *wrong])
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("values", ["0.5,x", "nan", "", "1e999"])
def test_statistics_that_are_none(values, capsys):
    with pytest.raises(SystemExit):
        parse(["--mean", values])
    assert "--mean" in capsys.readouterr().err
