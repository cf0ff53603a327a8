"""The page on the lab names options and files that exist, and its tables are those of the schedules' headers."""

import re
import shlex
from pathlib import Path

import pytest

from potstill.command.cli.options import parse

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "lab.md").read_text()
COMMANDS = re.findall(r"^    python compress_classifier\.py ((?:.*\\\n)*.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command):
    options = parse(shlex.split(command.replace("\\\n", " ")))
    assert options.data.dataset in ("mnist", "symmetry")
    schedule = options.compression.compress
    assert not schedule or (ROOT / "schedules" / "lab" / f"{schedule}.yaml").exists()


def test_there_are_commands_and_what_is_linked_exists():
    assert len(COMMANDS) >= 6
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link


@pytest.mark.parametrize("name", ["l1_loss", "l1_proximal"])
def test_sparsity_tables_are_those_of_the_headers(name):
    header = (ROOT / f"schedules/lab/{name}.yaml").read_text()
    rows = re.findall(r"^#   (layers\S+)\s+(.*)$", header, re.MULTILINE)
    assert len(rows) == 4
    for parameter, numbers in rows:
        cells = " | ".join([parameter, *numbers.split()[:5]])
        assert f"| {cells} |" in PAGE
    (zeros,) = re.findall(r"^#   (zeros .*)$", header, re.MULTILINE)
    assert f"\n\n{zeros}\n" in PAGE
