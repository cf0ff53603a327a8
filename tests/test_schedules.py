"""Every shipped schedule says in its header how it runs, and loads for that network."""

import re
import shlex
from pathlib import Path

import pytest

import compress_classifier

ROOT = Path(__file__).parents[1]
SCHEDULES = sorted((ROOT / "schedules").rglob("*.yaml"))


def header(path: Path) -> str:
    lines = path.read_text().splitlines()
    return "\n".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def command(path: Path) -> list[str]:
    """The arguments of the header's command."""
    found = re.search(r"compress_classifier\.py ((?:.*\\\n)*.*)", header(path))
    assert found, f"{path}: its header has no command"
    return shlex.split(found.group(1).replace("\\\n", " "))


def test_there_are_some():
    assert len(SCHEDULES) >= 2


@pytest.mark.parametrize("path", SCHEDULES, ids=lambda p: str(p.relative_to(ROOT / "schedules")))
def test_loads_for_the_network_of_its_command(path, capsys, monkeypatch, tmp_path):
    arguments = command(path)
    assert arguments[arguments.index("--compress") + 1].endswith(path.name)
    arguments[arguments.index("--compress") + 1] = str(path)
    for name in ("--exp-load-weights-from", "--resume-from"):
        if name in arguments:
            del arguments[arguments.index(name) : arguments.index(name) + 2]
    monkeypatch.chdir(tmp_path)
    assert compress_classifier.main([*arguments, "--dry-run"]) == 0
    assert "instance" in capsys.readouterr().out
    assert not list(tmp_path.iterdir()), "a dry run leaves nothing behind"


@pytest.mark.parametrize("path", SCHEDULES, ids=lambda p: str(p.relative_to(ROOT / "schedules")))
def test_header_tells_baseline_and_result(path):
    text = header(path).lower()
    assert "baseline" in text
    assert "result" in text
