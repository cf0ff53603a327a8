"""Text from files is shown, never obeyed: by terminals, by spreadsheets, by Markdown, by those who read a log."""

import csv
import io
import logging
import re

import pandas as pd
import pytest

from potstill.command.errors import text_of
from potstill.command.run.folder import RunFolder
from potstill.command.run.log_text import OneLine, Plain
from potstill.command.run.size_report import summary_table
from potstill.compression import CheckpointError, format_table
from potstill.compression.account_table import Entry, account_table, account_text
from potstill.compression.schedule import ScheduleError, load_schedule
from potstill.plots.style import label
from potstill.thinning.files.text import Lines, cell, csv_text, markdown, printable, shown

EVIL = "x\nFORGED \x1b[31m\r\x07\u202e\u2066\u200b\ud800\x85\u2028"


def test_a_text_is_one_line_without_commands():
    assert printable(EVIL) == r"x\nFORGED \x1b[31m\r\x07\u202e\u2066\u200b\ud800\x85\u2028"
    assert printable("Grüße, 漢字, 🙂 conv1.weight") == "Grüße, 漢字, 🙂 conv1.weight"
    assert shown(Lines("a\nb\x07")) == "a\nb\\x07"
    assert shown("a\nb") == r"a\nb"


def record(message, *args):
    return logging.LogRecord("potstill", logging.WARNING, "", 0, message, args, None)


def test_a_message_is_one_line_unless_the_program_made_it_of_several():
    assert OneLine().format(record("is %s, %d, %.1f", EVIL, 3, 2.5)) == f"is {printable(EVIL)}, 3, 2.5"
    assert OneLine().format(record("%s", Lines("a\nb"))) == "a\nb"
    assert OneLine().format(record("from \x1b elsewhere")) == r"from \x1b elsewhere"
    assert Plain().format(record("%s", "a")) == "warning: a"
    assert Plain(show=markdown).format(record("%s", "<b>|")) == r"warning: &lt;b&gt;\|"
    assert Plain(show=markdown).format(record("%s", Lines("<b>|\n<i>"))) == "warning: &lt;b&gt;\\|\n&lt;i&gt;"


def test_errors_are_one_line_and_those_of_schedules_one_each(tmp_path):
    for error in (CheckpointError(EVIL), OSError(2, "no such file", EVIL), RuntimeError(EVIL), ValueError(EVIL)):
        assert "\n" not in text_of(error) and "\x1b" not in text_of(error)
    path = tmp_path / "s.yaml"
    path.write_text('"a\\nFORGED": 1\n"b\\e": 2\npolicies: []\n')
    with pytest.raises(ScheduleError) as caught:
        load_schedule(path, None)
    lines = text_of(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems) >= 3
    assert all(line.startswith(str(path)) for line in lines)


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "=HYPERLINK(1)"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text):
    assert cell(text) == f"'{text}"
    table = format_table(pd.DataFrame([[text, 1.5]], columns=[text, "b"]), "csv")
    assert list(csv.reader(io.StringIO(table))) == [[f"'{text}", "b"], [f"'{text}", "1.5"]]


def test_numbers_stay_numbers():
    assert [cell(value) for value in ("-1.5", "+3", -2, 1e-9, None, "a-b", "")] == [
        "-1.5", "+3", -2, 1e-9, None, "a-b", ""
    ]  # fmt: skip
    assert csv_text([["a", -1, ""], ["b,c", 0.5, None]]) == 'a,-1,\n"b,c",0.5,\n'


def test_metrics_are_no_formulas(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_metrics([{"epoch": 0, "=1+1": 2.0, "\ud800": 1}])
    folder.close()
    text = (tmp_path / "metrics.csv").read_text()
    assert "'=1+1" in text and r"\ud800" in text


def test_a_row_of_markdown_has_the_cells_that_it_has():
    name = "<img src=x>|a|`b`[c](d)\nFORGED"
    text = format_table(pd.DataFrame([[name, 1]], columns=["n", "v"]), "markdown")
    assert len(text.splitlines()) == 3
    assert "<img" not in text and r"\|a\|" in text and r"\[c](d)" in text


def test_lines_have_a_form_in_markdown():
    name = "<img src=x>|a|"
    entry = Entry(name, name, "filters", 4, 2, 2, 2, 0, 0, name)
    text = account_text(account_table([entry]))
    assert name in Plain().format(record("%s", text))
    told = Plain(show=markdown).format(record("%s", text))
    assert "<img" not in told
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in told.splitlines() if line.startswith("|")]
    assert len(bars) == 3 and len(set(bars)) == 1, told
    times = {"latency_ms": {"1": 0.5, "64": 1.5}, "latency_spread_ms": {"1": [0.4, 0.6], "64": [1.25, 1.75]}}
    summary = {"parameters": 4, "macs": 8, "bytes": 9, "packed_bytes": 5, "top1": None, **times}
    told = Plain(show=markdown).format(record("%s", summary_table({"dense": summary, "masked": summary})))
    assert all(line.count("|") == 4 for line in told.splitlines()), told


def test_a_label_is_no_formula_of_matplotlib():
    assert label(r"a$\frac$\n") == r"a\$\frac\$\n"
    assert label("a\nb") == r"a\nb"
