"""Tables that pictures are drawn of, from files that anybody may have written."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype

from potstill.thinning.files.regular import read_whole
from potstill.thinning.files.text import printable

LARGEST = 1 << 23
"""Bytes of a file that is read: the metrics of some 50,000 epochs."""
MOST = 200
"""So many columns are drawn at most."""


def read_table(
    source: str | os.PathLike[str], name: str, needed: Sequence[str], texts: Sequence[str] = ()
) -> pd.DataFrame:
    """Return the table in a CSV file, or in the one of this name in a folder.

    Args:
        source: the file or the folder.
        name: of the file in a folder.
        needed: columns that have to be there.
        texts: columns that do not hold numbers.

    Raises:
        ValueError: the table lacks columns, has too many, or holds something else than numbers.
        OSError: there is no such file, it has more than 8 MiB, or is none: a pipe, or in a folder a link.
    """
    path = Path(source)
    content = read_whole(path / name, LARGEST) if path.is_dir() else read_whole(path, LARGEST, links=True)
    _look_over(path, content)
    try:
        table = pd.read_csv(io.BytesIO(content))
    except ValueError as error:
        raise ValueError(f"{path}: no table: {printable(str(error).strip().splitlines()[0])}") from error
    missing = [column for column in needed if column not in table]
    odd = [column for column in table if column not in texts and not is_numeric_dtype(table[column])]
    if missing:
        raise ValueError(f"{path}: has no column {missing[0]}")
    if odd:
        raise ValueError(f"{path}: the column {printable(odd[0])[:60]!r} holds something else than numbers")
    return table


def _look_over(path: Path, content: bytes) -> None:
    """Check a table before memory is taken for it.

    Raises:
        ValueError: it has too many columns, or rows that are shorter than its head: filled up, they would be more than
            the file has bytes.
    """
    lines = max(content.count(b"\n"), content.count(b"\r"))
    columns = content.lstrip().splitlines()[0].count(b",") + 1 if content.strip() else 0
    if columns > MOST:
        raise ValueError(f"{path}: {columns:,} columns are too many for a picture: {MOST} at most")
    if lines * columns > len(content) + columns:
        raise ValueError(f"{path}: no table: its {lines:,} rows have not {columns:,} cells each")
