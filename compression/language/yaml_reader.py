"""Reads a schedule's text: YAML's data model with YAML 1.2's scalars, a line for every key and value, and limits.

The parser's events are turned into nodes here rather than by PyYAML's constructors, for these reasons. No tag ever
makes an object. `1e-4` is a number; `on`, `yes`, `12:30` and `2020-01-01` are texts. Duplicate keys are seen. Depth and
size are limited while reading, aliases included, so that no file can exhaust memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from yaml import events

from potstill.thinning.files.text import printable

from .errors import Report
from .yaml_nodes import Document, Entries, Node, Unreadable, plain

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep"
MAX_NODES = 20_000
TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "float", "bool", "null", "map", "seq")}
CORE: list[tuple[re.Pattern[str], Any]] = [
    (re.compile(r"~|null|Null|NULL|"), lambda text: None),
    (re.compile(r"true|True|TRUE"), lambda text: True),
    (re.compile(r"false|False|FALSE"), lambda text: False),
    (re.compile(r"[-+]?[0-9]{1,300}"), int),
    (re.compile(r"0o[0-7]{1,300}|0x[0-9a-fA-F]{1,300}"), lambda text: int(text, 0)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), lambda text: float(text.replace(".", ""))),
]
UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
TAG = "!"
"""The key under which a mapping holds the tag that stood before it, where tags are taken."""
PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def decode(raw: bytes, report: Report) -> str | None:
    """Return the text of a file, or None with the reason reported."""
    if len(raw) > MAX_BYTES:
        report.error((), f"is larger than {MAX_BYTES // 1024} KiB, the limit for a schedule")
        return None
    wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"the byte 0x{raw[error.start]:02x} at offset {error.start} is not {'UTF-16' if wide else 'UTF-8'}"
        report.error((), f"{what}: save the file as UTF-8", raw.count(b"\n", 0, error.start) + 1)
        return None
    found = UNPRINTABLE.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        report.error((), f"the character {found.group()!a} may not stand in YAML", line)
        return None
    return text


def read(text: str, report: Report, takes_tags: bool = False) -> Document:
    """Read the one document of a text; what is wrong is reported, and then `data` is None.

    With `takes_tags` a tag before a mapping is kept as its entry `TAG`, a text like any other.
    """
    builder = _Builder(text, takes_tags)
    document = Document()
    try:
        node = builder.document()
    except Unreadable as error:
        report.error((), str(error), error.line)
    except yaml.MarkedYAMLError as error:
        report.error((), _syntax(error, text), _line(error))
    except yaml.YAMLError as error:
        report.error((), f"is not YAML: {printable(str(error))}")
    else:
        document.data = plain(node, (), document)
    return document


class _Builder:
    """Makes nodes of the parser's events."""

    def __init__(self, text: str, takes_tags: bool = False) -> None:
        self.events: Iterator[Any] = yaml.parse(text, Loader=PARSER)
        self.takes_tags = takes_tags
        self.anchors: dict[str, Node | None] = {}

    def document(self) -> Node:
        next(self.events)  # the stream's start
        event = next(self.events)
        if isinstance(event, events.StreamEndEvent):
            raise Unreadable(None, "is empty: a schedule needs at least `policies`")
        node = self.node(next(self.events), 0)
        next(self.events)  # the document's end
        event = next(self.events)
        if not isinstance(event, events.StreamEndEvent):
            raise Unreadable(event.start_mark.line + 1, "a second document begins (---): a schedule is one document")
        return node

    def node(self, event: Any, depth: int) -> Node:
        line = event.start_mark.line + 1
        if depth > MAX_DEPTH:
            raise Unreadable(line, TOO_DEEP)
        if isinstance(event, events.AliasEvent):
            return self.alias(event.anchor, line)
        tagged = self.takes_tags and (event.tag or "").startswith("!") and event.tag != "!"
        if event.tag and event.tag != "!" and event.tag not in TAGS and not tagged:
            raise Unreadable(line, f"the tag {_tag(event.tag)} is not allowed: a schedule is plain data")
        if event.anchor:
            self.anchors[event.anchor] = None
        node = self.content(event, line, depth)
        if tagged:
            node = self.with_tag(node, event.tag)
        if node.size > MAX_NODES:
            raise Unreadable(line, f"has more than {MAX_NODES} values (aliases counted each time)")
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def with_tag(self, node: Node, tag: str) -> Node:
        """Return a mapping, or nothing at all, with its tag as an entry."""
        if not isinstance(node.value, Entries):
            if node.value not in (None, ""):
                raise Unreadable(node.line, f"the tag {_tag(tag)} stands before something else than a mapping")
            node = Node(node.line, Entries())
        node.value.enter(TAG, node.line, Node(node.line, tag[1:]))
        node.size += 1
        return node

    def content(self, event: Any, line: int, depth: int) -> Node:
        kind = TAGS.get(event.tag or "", "")
        if isinstance(event, events.ScalarEvent):
            if kind in ("map", "seq"):
                raise Unreadable(line, f"the tag !!{kind} stands before a single value")
            return Node(line, _scalar(event, kind, line))
        mapping = isinstance(event, events.MappingStartEvent)
        if kind not in ("", "map" if mapping else "seq"):
            raise Unreadable(line, f"the tag !!{kind} stands before a {'mapping' if mapping else 'list'}")
        return self.mapping(line, depth) if mapping else self.sequence(line, depth)

    def alias(self, anchor: Any, line: int) -> Node:
        node = self.anchors.get(anchor)
        if node is None:
            inside = anchor in self.anchors
            raise Unreadable(line, f"the alias *{anchor} {'stands inside itself' if inside else 'has no anchor'}")
        return node

    def sequence(self, line: int, depth: int) -> Node:
        node = Node(line, [])
        while not isinstance(event := next(self.events), events.SequenceEndEvent):
            self.grow(node, self.node(event, depth + 1))
            node.value.append(self.last)
        return node

    def mapping(self, line: int, depth: int) -> Node:
        node = Node(line, Entries())
        while not isinstance(event := next(self.events), events.MappingEndEvent):
            key_line = event.start_mark.line + 1
            if not isinstance(event, events.ScalarEvent):
                raise Unreadable(key_line, "a key must be a plain name")
            merges = event.value == "<<" and event.implicit[0]
            self.grow(node, self.node(next(self.events), depth + 1))
            if merges:
                node.value.merge(self.last, key_line)
            else:
                node.value.enter(event.value, key_line, self.last)
        node.value.close()
        return node

    def grow(self, node: Node, child: Node) -> None:
        """Count a child; the sum is checked at once, for a list of aliases can outgrow the limit in one line."""
        self.last = child
        node.size += child.size
        if node.size > MAX_NODES:
            raise Unreadable(node.line, f"has more than {MAX_NODES} values (aliases counted each time)")


def _scalar(event: Any, kind: str, line: int) -> Any:
    plain, text = event.implicit[0], event.value
    if kind == "str" or not (plain or kind):
        return text
    value = next((make(text) for pattern, make in CORE if pattern.fullmatch(text)), text)
    types = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}.get(kind)
    if types and not (isinstance(value, types) and (kind == "bool" or not isinstance(value, bool))):
        raise Unreadable(line, f"{printable(text[:40])!r} is no !!{kind}")
    return float(value) if kind == "float" else value


def _tag(tag: str) -> str:
    return printable(tag.replace("tag:yaml.org,2002:", "!!"))


def _line(error: yaml.MarkedYAMLError) -> int | None:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else None


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    line = _line(error) or 1
    rows = text.split("\n")
    if rows[min(line, len(rows)) - 1].lstrip(" ").startswith("\t"):
        return "a tab stands where YAML wants spaces"
    if "nesting depth" in (error.problem or ""):  # libyaml 0.2.6 and newer read ahead, and have a limit of their own
        return TOO_DEEP
    message = error.problem or error.context or "the text does not parse"
    if error.problem and error.context and error.context_mark and error.context_mark.line + 1 != line:
        message += f" ({error.context} that begins in line {error.context_mark.line + 1})"
    return f"is not YAML: {printable(message)}"
