"""The page on masks names tests, the page on pruners names classes: all of them exist."""

import re
from pathlib import Path

from potstill.compression.declare.registry import registered

ROOT = Path(__file__).parents[2]


def test_every_answer_is_held_by_a_test():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "masks.md").read_text(encoding="utf-8")))
    files = Path(__file__).parent.glob("test_*.py")
    written = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)}
    assert len(named) > 20
    assert named <= written, named - written


def test_every_pruner_and_regularizer_is_on_its_page():
    page = (
        (ROOT / "docs" / "pruning.md")
        .read_text(encoding="utf-8")
        .replace("`L1Ranked…`", "`L1RankedStructureParameterPruner`")
    )
    for name in [*registered("pruners"), *registered("regularizers")]:
        assert f"`{name.removesuffix('_AGP')}`" in page, name
