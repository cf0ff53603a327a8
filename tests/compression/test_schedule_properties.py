"""Whatever a schedule's text is, the loader either takes it or lists what is wrong, line by line."""

import copy
import re
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.compression.schedule import ScheduleError, load_schedule

from .test_schedule_check import SCHEDULE, Net

MODEL = Net()
PARSED = yaml.safe_load(SCHEDULE.replace("1e-4", "1.0e-4").replace("2e-4", "2.0e-4"))
WORDS = [
    "agp", "class", "conv.weight", "*", "pruners", "StepLR", "null", "true", "-1", "1e999", ".nan", "[1, 2]", "{a: b}",
    "&a", "*a", "<<:", "!!python/name:os.system", "!!str", "'", '"', "|", ">", "- ", ": ", "#", "\n", "\t", "\n---\n",
    "{", "}", "[", "]", ",", "%", "@", "`", "\u2028", "\ufeff", "é", "0x", "9" * 400, "  ", "? ",
]  # fmt: skip
SETTINGS = settings(max_examples=150, deadline=None)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def fair(source: Any) -> bool:
    """Whether the loader takes it, or tells each mistake in a line of its own."""
    try:
        return len(load_schedule(source, MODEL, name="s.yaml").policies) > 0
    except ScheduleError as error:
        lines = str(error).splitlines()
        return 0 < len(lines) == len(error.problems) and all(re.match(r"s\.yaml(:\d+)?: .", line) for line in lines)


def paths(data: Any, path: tuple = ()) -> list[tuple]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(inner for key, value in items for inner in paths(value, (*path, key)))]


@SETTINGS
@given(st.sampled_from(paths(PARSED)[1:]), values)
def test_any_value_in_any_place(path, value):
    data = copy.deepcopy(PARSED)
    *outer, last = path
    place = data
    for key in outer:
        place = place[key]
    place[last] = value
    assert fair(data)


@SETTINGS
@given(st.sampled_from(paths(PARSED)[1:]))
def test_any_part_may_be_missing(path):
    data = copy.deepcopy(PARSED)
    *outer, last = path
    place = data
    for key in outer:
        place = place[key]
    del place[last]
    assert fair(data)


@SETTINGS
@given(st.data())
def test_any_edit_of_the_text(tmp_path_factory, data):
    text = SCHEDULE
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        gone = data.draw(st.integers(0, 12))
        text = text[:at] + data.draw(st.sampled_from(WORDS) | st.text(max_size=3)) + text[at + gone :]
    file = tmp_path_factory.mktemp("edit") / "s.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogateescape" if text.isascii() else "replace")
    assert fair(file)


@SETTINGS
@given(st.binary(max_size=60))
def test_any_bytes(tmp_path_factory, raw):
    file = tmp_path_factory.mktemp("bytes") / "s.yaml"
    file.write_bytes(raw)
    assert fair(file)


@SETTINGS
@given(st.lists(st.sampled_from(SCHEDULE.splitlines(keepends=True)), max_size=30))
def test_any_lines_in_any_order(tmp_path_factory, lines):
    file = tmp_path_factory.mktemp("lines") / "s.yaml"
    file.write_text("".join(lines))
    assert fair(file)
