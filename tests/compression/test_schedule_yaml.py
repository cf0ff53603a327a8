"""Reading YAML: scalars, lines, duplicates, anchors, limits, and what is refused."""

import math

import pytest
import yaml

from potstill.compression.language import yaml_reader
from potstill.compression.language.errors import Report
from potstill.compression.language.yaml_nodes import Document
from potstill.compression.language.yaml_reader import decode, read


@pytest.fixture(autouse=True, params=["CSafeLoader", "SafeLoader"])
def parser(request, monkeypatch):
    """libyaml's parser and PyYAML's own, which is used where the former is not installed."""
    monkeypatch.setattr(yaml_reader, "PARSER", getattr(yaml, request.param, yaml.SafeLoader))


def load(text: str) -> Document:
    report = Report("f.yaml")
    document = read(text, report)
    assert not report.problems, report.problems
    return document


def complaint(text: str | bytes) -> str:
    report = Report("f.yaml")
    decoded = decode(text, report) if isinstance(text, bytes) else text
    if decoded is not None:
        assert read(decoded, report).data is None
    (problem,) = report.problems
    return str(problem)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0.10", -0.1),
        ("+3", 3),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("190:20:30", "190:20:30"),
        ("2020-01-01", "2020-01-01"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2D", "2D"),
        ("1e", "1e"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
        ("!!int '7'", 7),
        ("! 1", 1),
        ("9" * 400, math.inf),
        ("=", "="),
    ],
)
def test_scalars(text, value):
    data = load(f"x: {text}").data["x"]
    assert data == value
    assert type(data) is type(value)


def test_keys_are_texts():
    assert load("on: 1\n2: b\nnull: c\n1.0: d").data == {"on": 1, "2": "b", "null": "c", "1.0": "d"}


def test_every_key_and_item_has_its_line():
    lines = load("a:\n  b:\n    - 1\n    - c: 2\n  d: [x,\n      y]\n").lines
    assert lines == {
        (): 1, ("a",): 1, ("a", "b"): 2, ("a", "b", 0): 3, ("a", "b", 1): 4, ("a", "b", 1, "c"): 4,
        ("a", "d"): 5, ("a", "d", 0): 5, ("a", "d", 1): 6,
    }  # fmt: skip


def test_anchors_aliases_and_merge_keys():
    text = """
        base: &base {class: A, x: 1, deep: &deep [1, 2]}
        same: *base
        more: {<<: *base, x: 2}
        other: &other
          x: 3
          y: *deep
        both:
          <<: [*other, *base]
          z: 4
        chain: {<<: {<<: *other, w: 5}}
    """
    data = load(text).data
    base = {"class": "A", "x": 1, "deep": [1, 2]}
    assert data["same"] == base
    assert data["more"] == {**base, "x": 2}
    assert data["both"] == {"class": "A", "deep": [1, 2], "x": 3, "y": [1, 2], "z": 4}
    assert data["chain"] == {"x": 3, "y": [1, 2], "w": 5}


def test_a_quoted_merge_key_is_a_key():
    assert load("a: {'<<': 1}").data == {"a": {"<<": 1}}


def test_lines_of_merged_keys_are_those_where_they_stand():
    lines = load("a: &a\n  x: 1\nb:\n  <<: *a\n  y: 2").lines
    assert (lines["b", "x"], lines["b", "y"]) == (2, 5)


def test_duplicates_are_noted_with_both_lines_and_the_last_wins():
    document = load("a:\n  x: [1]\n  y: 2\n  x: [1]\n  y: 3\n")
    assert document.data == {"a": {"x": [1], "y": 3}}
    found = [(twice.path, twice.first, twice.second, twice.equal) for twice in document.duplicates]
    assert found == [(("a", "x"), 2, 4, True), (("a", "y"), 3, 5, False)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.yaml: is empty: a schedule needs at least `policies`"),
        ("# only a comment\n", "is empty"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: a second document begins (---)"),
        ("a: [1,\n  2\nb: 3\n", "f.yaml:3: is not YAML: "),
        ("a: 'x\n", "is not YAML: "),
        ("a: b: c", "f.yaml:1: is not YAML: mapping values are not allowed "),
        ("a:\n\tb: 1", "f.yaml:2: a tab stands where YAML wants spaces"),
        ("a:\n  - 1\n \t- 2", "f.yaml:3: a tab stands"),
        ("a: *x", "f.yaml:1: the alias *x has no anchor"),
        ("a: &x\n  b: *x", "f.yaml:2: the alias *x stands inside itself"),
        ("a: 1\nb: !!python/object/apply:os.system ['id']", "f.yaml:2: the tag !!python/object/apply:os.system is not"),
        ("b: !mine 3", "the tag !mine is not allowed: a schedule is plain data"),
        ("b: !!timestamp 2020-01-01", "the tag !!timestamp is not allowed"),
        ("b: !!binary aGk=", "the tag !!binary is not allowed"),
        ("b: !!set {a, b}", "the tag !!set is not allowed"),
        ("b: !!int x", "'x' is no !!int"),
        ("b: !!int true", "'true' is no !!int"),
        ("b: !!map 3", "the tag !!map stands before a single value"),
        ("b: !!seq {a: 1}", "the tag !!seq stands before a mapping"),
        ("[a]: 1", "f.yaml:1: a key must be a plain name"),
        ("a: {<<: 3}", "the merge key (<<) takes a mapping or a list of mappings"),
        ("a: {<<: [1]}", "the merge key (<<) takes a mapping or a list of mappings"),
        ("a: {<<: {}, <<: {}}", "a second merge key"),
        ("a: " + "[" * 60 + "]" * 60, "f.yaml:1: is nested more than 50 levels deep"),
        ("[" * 100_000, "f.yaml:1: is nested more than 50 levels deep"),
        ("%YAML 3.0\n---\na: 1", "f.yaml:1: is not YAML"),
        (b"a: b\x00c", "f.yaml:1: the character '\\x00' may not stand in YAML"),
        (b"a: 1\nb: \x1b[0m", "f.yaml:2: the character '\\x1b' may not stand in YAML"),
        (b"a: 1\nb: \xff\xff", "f.yaml:2: the byte 0xff at offset 8 is not UTF-8: save the file as UTF-8"),
        (b"\xff\xfea\x00:\x00 \x00\x00\xd8", "is not UTF-16"),
        (b"#" * (yaml_reader.MAX_BYTES + 1), "f.yaml: is larger than 1024 KiB"),
    ],
)
def test_what_cannot_be_read_is_one_line(text, message):
    told = complaint(text)
    assert message in told
    assert told.isprintable()


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(codec):
    report = Report()
    text = decode("größe: 'λ'\r\n".encode(codec), report)
    assert text is not None
    assert load(text).data == {"größe": "λ"}


def test_alias_bombs_are_refused():
    layers = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    assert "has more than 20000 values (aliases counted each time)" in complaint(f"a0: &a0 [x]\n{layers}")
    merges = "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
    assert "has more than 20000 values" in complaint(f"m0: &m0 {{x: 1}}\n{merges}")


def test_duplicates_inside_duplicates_stay_cheap():
    text = "1"
    for _ in range(45):
        text = f"{{a: 1, a: {text}}}"
    assert len(load(f"a: {text}").duplicates) == 45


def test_many_values_are_fine():
    assert len(load("a:\n" + "".join(f"  k{i}: [{i}, Filters]\n" for i in range(4000))).data["a"]) == 4000
