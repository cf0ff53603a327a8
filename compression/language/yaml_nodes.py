"""The nodes that a schedule's text is read into, and the plain data that they stand for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .errors import Path


class Unreadable(Exception):  # noqa: N818 -- `read` reports it
    """A text that cannot be read, and the line (from 1) where that shows."""

    def __init__(self, line: int | None, message: str) -> None:
        """Take the line, None for the whole text, and what is wrong."""
        super().__init__(message)
        self.line = line


@dataclass
class Node:
    """A value and where it begins; mappings hold `key -> (line of the key, node)`, lists hold nodes.

    `size` counts the node and all below it, those behind aliases each time.
    """

    line: int
    value: Any = None
    size: int = 1


@dataclass(frozen=True)
class Duplicate:
    """A key that stands twice in one mapping; the second value wins.

    Attributes:
        hidden: path and data of the first, down to definitions.
    """

    path: Path
    first: int
    second: int
    equal: bool
    hidden: tuple[Path, Any] | None = None


@dataclass
class Document:
    """A schedule's text as plain data.

    Attributes:
        data: mappings (with texts as keys), lists and scalars; None if the text could not be read.
        lines: path -> line, from 1.
        duplicates: keys that stand twice.
    """

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    duplicates: list[Duplicate] = field(default_factory=list)


class Entries(dict[str, tuple[int, Node]]):
    """A mapping's entries: key -> (line of the key, value), its merge keys, and its duplicates."""

    def __init__(self) -> None:
        """Start without any."""
        super().__init__()
        self.merged: list[Node] | None = None
        self.twice: list[tuple[str, int, int, Node, Node]] = []

    def enter(self, key: str, line: int, node: Node) -> None:
        """Enter a value; one that stood under the key is a duplicate."""
        if key in self:
            self.twice.append((key, self[key][0], line, self[key][1], node))
        self[key] = (line, node)

    def merge(self, node: Node, line: int) -> None:
        """Note what the merge key stands before.

        Raises:
            Unreadable: it is the second one, or no mapping.
        """
        if self.merged is not None:
            raise Unreadable(line, "a second merge key (<<) in one mapping: give it a list of aliases")
        self.merged = node.value if isinstance(node.value, list) else [node]
        if not all(isinstance(part.value, Entries) for part in self.merged):
            raise Unreadable(line, "the merge key (<<) takes a mapping or a list of mappings")

    def close(self) -> None:
        """Take over what the merge keys bring: what stands here wins, then the earlier of several."""
        for node in self.merged or ():
            for key, entry in node.value.items():
                self.setdefault(key, entry)


def plain(node: Node, path: Path, document: Document) -> Any:
    """Return the node's data; its lines and duplicates go into the document."""
    document.lines.setdefault(path, node.line)
    if isinstance(node.value, list):
        return [plain(child, (*path, i), document) for i, child in enumerate(node.value)]
    if not isinstance(node.value, Entries):
        return node.value
    data = {}
    for key, (line, child) in node.value.items():
        inside = (*path, key)
        document.lines[inside] = line
        data[key] = plain(child, inside, document)
    for key, first, second, old, new in node.value.twice:
        aside = (*path, f"{key} (line {first})")
        hidden = (aside, plain(old, aside, document)) if len(path) < 2 else None
        document.duplicates.append(Duplicate((*path, key), first, second, _bare(old) == _bare(new), hidden))
    return data


def _bare(node: Node) -> Any:
    """Return the node's data alone."""
    if isinstance(node.value, list):
        return [_bare(child) for child in node.value]
    if isinstance(node.value, Entries):
        return {key: _bare(child) for key, (_, child) in node.value.items()}
    return node.value
