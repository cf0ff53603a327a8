"""A checkpoint names its network, a folder alone is an image folder, and the last checkpoints are kept."""

import pytest
import torch
from PIL import Image

import compress_classifier
from potstill.command.cli.options import parse
from potstill.compression import load_checkpoint, save_checkpoint

TINY = ["--limit-train", "64", "--limit-test", "20", "-b", "32"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three epochs that kept two checkpoints."""
    out = tmp_path_factory.mktemp("runs")
    arguments = ["-a", "mlp", *TINY, "--epochs", "3", "--keep-checkpoints", "2", "-o", str(out)]
    assert compress_classifier.main(arguments) == 0
    return out / "latest"


@pytest.mark.parametrize("option", ["--resume-from", "--exp-load-weights-from", "--resume"])
def test_a_checkpoint_names_its_network(trained, tmp_path, capsys, option):
    assert parse([option, str(trained / "best.pt")]).data.arch == "mlp"
    assert compress_classifier.main([option, str(trained / "best.pt"), "-e", *TINY, "-o", str(tmp_path)]) == 0
    assert "test ==> Top1" in capsys.readouterr().out


def test_a_network_that_is_none_is_said_in_one_line(trained, tmp_path, capsys):
    stranger = {**load_checkpoint(trained / "best.pt"), "arch": "-e\x1b[31m"}
    save_checkpoint(tmp_path / "x.pt", stranger)
    with pytest.raises(SystemExit) as ended:
        compress_classifier.main(["--resume-from", str(tmp_path / "x.pt"), "-e"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and "\x1b" not in said
    assert "x.pt: arch: no network '-e" in said


def test_the_last_checkpoints_are_kept(trained, tmp_path):
    names = sorted(path.name for path in trained.glob("checkpoint_*"))
    assert names == ["checkpoint_0001.pt", "checkpoint_0002.pt"]
    assert load_checkpoint(trained / "checkpoint_0001.pt")["epoch"] == 2
    last, newest = load_checkpoint(trained / "checkpoint_0002.pt"), load_checkpoint(trained / "checkpoint.pt")
    for name, tensor in newest["state_dict"].items():
        assert torch.equal(last["state_dict"][name], tensor)
    earlier = ["--resume-from", str(trained / "checkpoint_0001.pt"), *TINY, "--epochs", "3", "-o", str(tmp_path)]
    assert compress_classifier.main(earlier) == 0
    again = load_checkpoint(tmp_path / "latest" / "checkpoint.pt")["state_dict"]
    assert all(torch.equal(tensor, again[name]) for name, tensor in newest["state_dict"].items())


def test_a_folder_alone_is_an_image_folder(tmp_path, monkeypatch, capsys):
    for part in ("train", "test"):
        for shade, name in ((20, "ant"), (200, "bee")):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (32, 32), (shade + number,) * 3).save(folder / f"{number}.png")
    assert parse(["--data", "x"]).data.dataset == "imagefolder"
    assert parse(["--data", "x", "--dataset", "cifar10"]).data.dataset == "cifar10"
    assert parse([]).data.dataset == "digits"
    arguments = ["--data", str(tmp_path / "images"), "-a", "simplenet_cifar", "--epochs", "1", "-o", str(tmp_path)]
    assert compress_classifier.main(arguments) == 0
    assert "trains simplenet_cifar on imagefolder" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "latest" / "checkpoint.pt")["num_classes"] == 2
