"""Tables for notebooks, in which every text that may come from elsewhere is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from .text import printable

MISSING = ("", "nan", "<NA>")
MOST = 40
"""So many rows are shown; a line says how many more there are."""


def html(text: object) -> str:
    """Return a text as it stands in HTML, without any markup of its own."""
    return escape(printable(text))


def html_lines(*lines: object) -> str:
    """Return a paragraph a text."""
    return "".join(f"<p>{html(line)}</p>\n" for line in lines)


def html_table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table of at most `MOST` rows; numbers are to the right and short, what is missing is empty."""
    every = list(rows)
    lines = [f"<tr>{''.join(f'<th>{html(head)}</th>' for head in heads)}</tr>"]
    lines += [f"<tr>{''.join(map(_cell, row))}</tr>" for row in every[:MOST]]
    return "\n".join(["<table>", *lines, "</table>\n"]) + html_lines(*more(len(every)))


def more(count: int) -> list[str]:
    """Return what to say of the rows that are not shown; nothing where all are."""
    return [f"… and {count - MOST} more"] if count > MOST else []


def _cell(value: Any) -> str:
    if value is None or str(value) in MISSING:
        return "<td></td>"
    if isinstance(value, str):
        return f'<td style="text-align: left">{html(value)}</td>'
    return f"<td>{value:,}</td>" if isinstance(value, int) else f"<td>{value:.5g}</td>"
