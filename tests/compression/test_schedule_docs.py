"""The page on the schedule language says what the loader does."""

import re
from pathlib import Path

import pytest

from potstill.compression.declare import registry
from potstill.compression.declare.registry import SECTIONS
from potstill.compression.language.policy_check import ARGS, WHEN
from potstill.compression.language.signatures import KINDS, arguments, classes
from potstill.compression.schedule import load_plugin, load_schedule

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "schedules.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Classes that a test registers are gone after it."""
    monkeypatch.setattr(registry, "_classes", {section: dict(known) for section, known in registry._classes.items()})


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_example_loads(text, tmp_path):
    file = tmp_path / "example.yaml"
    file.write_text(text)
    assert load_schedule(file, None).warnings == []


def test_every_key_is_described():
    keys = {*SECTIONS, *KINDS.keys() - {"quantizer"}, *WHEN, "policies", "version", "instance_name", "args", "class"}
    keys |= {key for cls in ARGS.values() for key in arguments(cls)}
    assert [key for key in keys if f"`{key}`" not in PAGE and f"{key}:" not in PAGE] == []


def test_the_example_of_a_class_is_a_plugin(tmp_path):
    (text,) = [block for block in blocks("python") if "@register" in block]
    file = tmp_path / "my_pruner.py"
    file.write_text(text)
    plugin = load_plugin(file)
    assert set(arguments(plugin.MyPruner)) == {"weights", "level", "how"}


def statuses() -> dict[str, str]:
    """Class -> what the page on Distiller says of it."""
    text = (DOCS / "distiller.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*?) \| (same|deviates|refused|new) \|", text, re.M)
    names = r"`([A-Z]\w*(?:Pruner|Pruner_AGP|Regularizer|Remover|LR|Scheduler|Quantizer))`"
    return {name: status for cells, status in rows for name in re.findall(names, cells)}


@pytest.mark.parametrize(("name", "status"), statuses().items())
def test_classes_of_distiller_are_there_or_refused_as_the_page_says(name, status):
    known = {known for section in SECTIONS for known in classes(section)}
    assert (name in known) == (status != "refused")
