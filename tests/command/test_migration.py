"""`docs/migration.md`: its blocks run as they stand, on small data."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from torchvision.io import write_png

import compress_classifier
from potstill.command.run import size_report
from potstill.compression import load_checkpoint, load_schedule
from potstill.models import create_model
from potstill.models.datasets.cifar10 import CLASSES

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")
YAML = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture(autouse=True, scope="module")
def short_measurements():
    """Latencies are not looked at here."""
    before, size_report.SECONDS = size_report.SECONDS, 0.01
    yield
    size_report.SECONDS = before


def run(line, home):
    """A command of the page, with the home folder of the test and little training."""
    words = shlex.split(line.replace("~", str(home)).replace("--epochs=70", "--epochs=1 -b 10"))
    assert words[0] == "compress-classifier"
    return compress_classifier.main(words[1:])


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Images as CIFAR-10 has them, and a network as Distiller wrote it."""
    for part in ("train", "test"):
        for name in CLASSES:
            folder = tmp_path / "cifar10" / part / name
            folder.mkdir(parents=True)
            write_png(torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), str(folder / "1.png"))
    model = create_model("resnet20_cifar")
    state = {f"module.{n}": t for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    masks = {"masks_dict": dict.fromkeys(f"module.{name}" for name, _ in model.named_parameters())}
    contents = {"epoch": 179, "arch": "resnet20_cifar", "state_dict": state, "compression_sched": masks}
    torch.save(contents, tmp_path / "model.pth.tar", _use_new_zipfile_serialization=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_distiller(home, capsys):
    (home / "schedule.yaml").write_text(YAML[0], encoding="utf-8")
    for line in COMMANDS[:2]:
        assert run(line, home) == 0
    said = capsys.readouterr().out
    shown = re.search(r"The first says\n\n(.*?)\n\n", PAGE, re.DOTALL)[1]
    assert all(line.strip() in said for line in shown.splitlines())
    thinned = load_checkpoint(home / "runs" / "latest" / "thinned.pt")
    shapes = [thinned["state_dict"][f"layer{stage}.0.conv1.weight"].shape[0] for stage in (1, 2, 3)]
    assert shapes == [8, 16, 32] and thinned["mean"] == [0.5] * 3
    assert (home / "runs" / "latest" / "thinned.safetensors").exists()


def test_from_sparseml(home, capsys):
    (home / "recipe.yaml").write_text(YAML[1], encoding="utf-8")
    command, _, target = COMMANDS[2].partition(" > ")
    assert run(command, home) == 0
    captured = capsys.readouterr()
    shown = re.search(r"line too:\n\n(.*?)\n\n", PAGE, re.DOTALL)[1]
    assert [line.strip() for line in shown.splitlines()] == captured.out.splitlines()[:4]
    assert "recipe.yaml:18: !QuantizationModifier: not translated" in captured.err + captured.out
    (home / target).write_text(captured.out, encoding="utf-8")
    assert load_schedule(home / target, create_model("resnet20_cifar")).policies
    assert run(COMMANDS[3], home) == 0
    assert "AutomatedGradualPruner" in capsys.readouterr().out
    assert len(yaml.safe_load(captured.out)["policies"]) == 2


def test_from_torch(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    parts = {}
    exec(code, parts)
    assert "16x3x3x3      8x3x3x3" in re.sub(r" {2,}", "      ", capsys.readouterr().out)
    plain = {f"{place}.{kind}" for place in (0, 2, 5) for kind in ("weight", "bias")}
    assert parts["model"].state_dict().keys() == plain
