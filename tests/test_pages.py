"""All pages: files that they name exist, lines are at most 120 long where they can be wrapped."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
LONGEST = 120
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def test_files_that_the_architecture_names_exist():
    page = (ROOT / "docs" / "architecture.md").read_text()
    files = re.findall(r"`([a-z_0-9/]+\.py)`", page)
    assert len(files) > 40
    assert not [name for name in files if not (ROOT / name).is_file()]


def test_walks_enter_every_package_in_order():
    page = (ROOT / "docs" / "architecture.md").read_text()
    walks = page.split("\n## ")[1:]
    assert [walk.split("\n")[0] for walk in walks] == [
        "A schedule becomes a mask",
        "A model is thinned",
        "A run is killed and resumed",
    ]
    for walk in walks:
        numbers = re.findall(r"^(\d+)\. ", walk, re.MULTILINE)
        assert numbers == [str(n) for n in range(1, len(numbers) + 1)] and len(numbers) >= 7


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_are_wrapped(page):
    """But for tables, code and output as it was."""
    text = CODE.sub("", page.read_text())
    long = [line for line in text.split("\n") if len(line) > LONGEST and not line.startswith(("|", "    "))]
    assert not [line for line in long if " " in line.strip("- ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", CODE.sub("", page.read_text())):
        assert link.startswith("https://") or (page.parent / link).exists(), link
