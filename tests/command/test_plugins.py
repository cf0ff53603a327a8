"""`--plugin`: networks and data sets of one's own, by the examples of the pages."""

import re
from pathlib import Path

import pytest

import compress_classifier
from potstill.compression import load_checkpoint
from potstill.models import registry
from potstill.models.datasets import raw

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """The pages' network and data set as files, forgotten after the test."""
    for module, name in ((registry, "_infos"), (registry, "_factories"), (raw, "_readers")):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", (DOCS / "extending.md").read_text(), re.DOTALL)
    (tmp_path / "net.py").write_text(next(text for text in examples if '"tiny"' in text))
    examples = re.findall(r"```python\n(.*?)```", (DOCS / "datasets.md").read_text(), re.DOTALL)
    text = next(text for text in examples if '"stripes"' in text)
    text = re.sub(r"from \.(raw|settings) import", "from potstill.models.datasets import", text)
    (tmp_path / "stripes.py").write_text(text)
    (tmp_path / "empty.py").write_text("x = 1\n")


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        compress_classifier.main(arguments)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_network_and_a_data_set_are_trained_and_resumed(plugins, tmp_path, capsys):
    assert "no network 'tiny'" in refused(["--arch", "tiny"], capsys)
    files = ["--plugin", "net.py", "--plugin=stripes.py"]
    own = ["--arch", "tiny", "--dataset", "stripes", "--epochs", "1", "-o", "out"]
    assert compress_classifier.main([*own, *files]) == 0
    checkpoint = load_checkpoint(tmp_path / "out" / "latest" / "checkpoint.pt")
    assert checkpoint["arch"] == "tiny" and checkpoint["num_classes"] == 2
    again = ["--resume-from", "out/latest", "--epochs", "2"]
    assert "this run had plugins, which are code: if you trust them, add --plugin net.py" in refused(again, capsys)
    assert compress_classifier.main([*again, *files]) == 0
    assert load_checkpoint(tmp_path / "out" / "latest" / "checkpoint.pt")["epoch"] == 2


def test_the_list_names_networks_of_plugins(plugins, capsys):
    assert compress_classifier.main(["--arch", "list", "--plugin", "net.py"]) == 0
    assert re.search(r"^tiny +One convolution and a Linear\.$", capsys.readouterr().out, re.MULTILINE)


def test_what_is_refused(plugins, capsys):
    assert "(did you mean stripes?)" in refused(["--plugin", "stripes.py", "--dataset", "stripe"], capsys)
    nothing = "plugin empty.py: registers nothing: put @register(section) above a class, or @register_model or"
    assert nothing in refused(["--plugin", "empty.py"], capsys)
    assert "argument --plugin: expected one argument" in refused(["--plugin"], capsys)
    Path("taken.py").write_text(Path("net.py").read_text().replace('"tiny"', '"resnet20_cifar"'))
    taken = r"plugin taken\.py:\d+: ModelError: model name 'resnet20_cifar' is already taken by"
    assert re.search(taken, refused(["--plugin", "taken.py"], capsys))
