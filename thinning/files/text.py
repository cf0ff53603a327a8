"""Text that may come from a stranger's file, made safe to show: in a line, in Markdown, in a spreadsheet.

A name with a line break forges a line of a log, an escape sequence is a command to a terminal, bidirectional marks show
something else than what is there (https://trojansource.codes), and a cell that begins with `=` is computed by
spreadsheets (https://owasp.org/www-community/attacks/CSV_Injection).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence

FORMULA = ("=", "+", "-", "@")
MARKDOWN = str.maketrans({"\\": r"\\", "|": r"\|", "<": "&lt;", ">": "&gt;", "`": r"\`", "[": r"\["})


class Lines(str):
    """Text whose line breaks are meant: made by the program, of parts that are `printable`.

    Attributes:
        in_markdown: what stands for it in a Markdown document, all markup in it meant; None: its lines are plain text.
    """

    in_markdown: str | None

    def __new__(cls, text: object = "", in_markdown: str | None = None) -> Lines:
        """Take the text, and perhaps what stands for it in Markdown."""
        lines = super().__new__(cls, text)
        lines.in_markdown = in_markdown
        return lines


def is_text(name: object) -> bool:
    """Return whether a name is text: where it is no UTF-8, Python has lone surrogates for the bytes."""
    return not any("\ud800" <= c <= "\udfff" for c in str(name))


def printable(text: object) -> str:
    """Return a text on one line: line breaks, control characters, direction marks and lone surrogates are escaped."""
    line = str(text)
    return line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def shown(value: object, show: Callable[[object], str] = printable) -> str:
    """Return a text as it may be shown: `Lines` line by line, anything else on one line."""
    if not isinstance(value, Lines):
        return show(value)
    if show is markdown and value.in_markdown is not None:
        value, show = value.in_markdown, printable
    return Lines("\n".join(map(show, value.split("\n"))))


def markdown(text: object) -> str:
    """Return a text as one cell of a Markdown table, without any markup of its own."""
    return printable(text).translate(MARKDOWN)


def cell(value: object) -> object:
    """Return a value as a cell of a spreadsheet: a text that would be a formula gets an apostrophe, as sheets do it."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA) and not _is_number(text) else text


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV in which no cell is a formula."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([cell(value) for value in row] for row in rows)
    return text.getvalue()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
