"""What the user can mend: exit status 2 and one line that says what and where, never a traceback."""

import pytest
import torch

import compress_classifier

NET = ["--arch", "simplenet_cifar", "--limit-train", "64", "--limit-test", "32", "--limit-validation", "32"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text("pruners: [")
    (tmp_path / "wrong.yaml").write_text(
        "pruners:\n"
        "  agp: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 1.5, weights: [conv9.weight]}\n"
        "policies:\n"
        "  - {pruner: {instance_name: apg}, starting_epoch: 0, ending_epoch: 2, frequncy: 1}\n"
    )
    (tmp_path / "text.pt").write_text("not a checkpoint")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "plugin.py").write_text("raise RuntimeError('broken plugin')")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arch", "resnet20_cifer"], "no network 'resnet20_cifer' (did you mean resnet20_cifar"),
        (["--arch", "resnet20"], "no network 'resnet20' (did you mean resnet20_cifar"),
        (["--dataset", "digit"], "no data set 'digit' (did you mean digits?)"),
        (["--lr", "abc"], "argument --learning-rate/--lr: 'abc' is not a number"),
        (["--lr", "nan"], "nan is not a number above 0"),
        (["--epochs", "-3"], "'-3' is not a whole number of 0 or more"),
        (["--vs", "1.0"], "1.0 is not a number of 0 or more and below 1"),
        (["--dry-run"], "--dry-run shows a schedule: --compress FILE"),
        (["--thinnify"], "--thinnify needs the checkpoint to thin"),
        ([*NET, "--dataset", "imagefolder", "--data", "nowhere"], "nowhere: no such folder"),
        ([*NET, "--dataset", "imagefolder", "--data", "empty"], "empty"),
        ([*NET, "--compress", "nosuch.yaml"], "nosuch.yaml: no such file here"),
        ([*NET, "--compress", "broken.yaml"], "broken.yaml:"),
        ([*NET, "--resume-from", "nothing.pt"], "nothing.pt: no such checkpoint"),
        ([*NET, "--resume-from", "text.pt"], "text.pt: not a checkpoint of tensors and plain data"),
        ([*NET, "--resume-from", "list.pt"], "list.pt: holds a list, not a checkpoint"),
        ([*NET, "--resume-from", "empty"], "checkpoint.pt: no such checkpoint"),
        ([*NET, "--device", "nodevice"], "--device nodevice"),
        ([*NET, "--plugin", "missing.py"], "missing.py: no such file"),
        ([*NET, "--plugin", "plugin.py"], "broken plugin"),
        ([*NET, "--pretrained"], "there are no pretrained weights"),
        ([*NET, "--lr", "1e9", "--epochs", "9"], "the loss is nan at epoch"),
    ],
)
def test_one_line_and_status_2(files, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        compress_classifier.main(arguments)
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in said
    assert said.startswith("compress-classifier: ")
    assert said.count("\n") == 1


def test_all_mistakes_of_a_schedule_at_once_with_their_lines(files, capsys):
    with pytest.raises(SystemExit) as stop:
        compress_classifier.main([*NET, "--compress", "wrong.yaml", "--dry-run"])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert "wrong.yaml:2: pruners.agp.final_sparsity:" in said
    assert "wrong.yaml:2: pruners.agp.weights[0]:" in said
    assert "conv1.weight" in said, "near names are suggested"
    assert "wrong.yaml:4: policies[0].pruner.instance_name:" in said
    assert "did you mean 'agp'" in said or "did you mean agp" in said
    assert "frequncy" in said
    assert "did you mean frequency" in said or "did you mean 'frequency'" in said


def test_debug_shows_where_it_arose(files):
    with pytest.raises(ValueError, match="no such checkpoint"):
        compress_classifier.main([*NET, "--resume-from", "nothing.pt", "--debug"])


def test_a_checkpoint_of_another_network(files, capsys):
    assert compress_classifier.main([*NET, "--epochs", "1", "-o", "runs"]) == 0
    with pytest.raises(SystemExit):
        compress_classifier.main(["-a", "simplenet_mnist", "--resume-from", "runs/latest/checkpoint.pt"])
    assert "is a checkpoint of simplenet_cifar, not of simplenet_mnist" in capsys.readouterr().err
