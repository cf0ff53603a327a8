"""What came of all families as a page."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import Any

HEAD = """# Coverage

One small member of each family of timm and transformers, thinned by `benchmarks/coverage.py`: of every class of
removable channels 30 % are zeroed, `thin` removes them and compares the outputs. Times are seconds of one processor of
a busy machine.
Where the smallest member is large it is built with fewer blocks; images are small where the model takes them. Of
transformers each family has its own configuration with small widths (all divided by one number where they have to match
one another), two layers or one of each kind, and random weights; many models of texts and images run on texts alone.
Families that are not here were not tried; the script goes on with those.

- *removable*: of the channels that layers make (but the model's outputs), the share that can be removed exactly;
- *went*: of the channels that were zeroed, the share that went (zeros that make no zeros stay: queries before a
  softmax, say; and some of those whose number has to be a multiple of four);
- *difference*: the largest difference of an output by the largest output, in single precision; above 1e-5 it is
  rounding that the network amplifies, as a comparison in double precision shows;
- *trains*: whether a training step works afterwards, where it worked before (detectors that want targets, and models
  that refuse such inputs in training, have no answer).
"""

COLUMNS = "outcome", "parameters", "left", "removable", "went", "difference", "trace s", "thin s", "trains"


def page(rows: list[Any]) -> str:
    """Return the page."""
    lines = [HEAD]
    for library in ("timm", "transformers"):
        mine = [row for row in rows if row.library == library]
        counts = Counter(row.outcome for row in mine)
        said = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
        lines += [f"## {library}", "", f"{len(mine)} families: {said or 'none ran'}.", ""]
        lines += [f"| family | model | {' | '.join(COLUMNS)} |"]
        lines += ["| --- | --- | --- | --: | --: | --: | --: | --: | --: | --: | --- |"]
        for row in (row for row in mine if row.outcome == "exact"):
            numbers = f"{row.parameters:,} | {row.left:,} | {row.removable:.0%} | {row.went:.0%} | {row.difference:.0e}"
            numbers += f" | {row.trace:.1f} | {row.thin:.1f}"
            lines.append(f"| {row.family} | {row.model} | exact | {numbers} | {row.trains} |")
        lines += ["", *list_of(mine, "exact", "What keeps most of the others, where less than 60 % are removable"), ""]
        untrained = [row for row in mine if row.trains == "no"]
        lines += [*listed(untrained, "No training step afterwards, though before"), ""]
        for outcome, title in (
            ("refused", "Refused"),
            ("too slow", "Too slow"),
            ("crash", "Crashes"),
            (
                "fails",
                "Not built or not run: sizes or inputs that the script does not find, packages that are not there",
            ),
        ):
            lines += [*list_of(mine, outcome, title), ""]
    text = "\n".join(lines).rstrip() + "\n"
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text


def list_of(rows: list[Any], outcome: str, title: str) -> list[str]:
    """Return rows of one outcome with their reasons as a list."""
    return listed([r for r in rows if r.outcome == outcome and (outcome != "exact" or r.removable < 0.6)], title)


def listed(rows: list[Any], title: str) -> list[str]:
    """Return rows with their reasons as a list."""
    items = [textwrap.shorten(f"- {row.family}: {row.reason.replace('|', '/')}", 118, placeholder=" …") for row in rows]
    return [f"{title}:", "", *items] if items else []
