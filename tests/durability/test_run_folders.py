"""Run folders of strangers, read for reports, comparisons and pictures; folders whose names are no text."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from potstill.command.compare import read_run, runs_in
from potstill.command.compare.stored import MOST, MOST_BATCHES
from potstill.command.errors import UsageError
from potstill.command.exports.registry import Export
from potstill.command.exports.written import write
from potstill.command.monitors.tensorboard import EventWriter
from potstill.command.plots.tradeoff import plot_tradeoff
from potstill.command.report import write_comparison_report, write_report
from potstill.command.report.run import MOST_COLUMNS, MOST_ROWS
from potstill.compression import CheckpointError
from potstill.plots.tables import read_table
from potstill.thinning.files.text import is_text

from ..report.folders import METRICS, network, summary, write_run

NO_TEXT = os.fsdecode(b"a\xff\n\x1b[31mb")
FILES = ["summary.json", "metrics.csv", "schedule.yaml", "environment.json"]


def layer(name):
    widths = dict.fromkeys(("before", "after", "parameters_before", "parameters_after", "zeros"), 1)
    return {"layer": name, **widths}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"thinned": network(9, 1e308)}, "thinned.top1: expected a number from 0 to 100"),
        ({"thinned": network(9, -1)}, "thinned.top1: expected a number from 0 to 100"),
        ({"thinned": network(9, 9, 1e308)}, "latency_ms.1: expected a number from 0 to 1e"),
        ({"thinned": network(9, 9) | {"latency_ms": dict.fromkeys(map(str, range(MOST_BATCHES + 1)), 1)}}, "at most"),
        ({"account": [{str(n): 1} for n in range(MOST_COLUMNS + 1)]}, "account: has 201 columns, and 200 are the most"),
        ({"input_shape": []}, "input_shape: expected channels"),
        ({"notes": json.loads("[" * 500 + "]" * 500)}, "notes.0.: expected a text"),
    ],
)
def test_what_would_overflow_or_never_end_is_refused(tmp_path, change, told):
    folder = write_run(tmp_path / "run")
    (folder / "summary.json").write_text(json.dumps(summary() | change))
    with pytest.raises(CheckpointError, match=told) as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        (",".join(map(str, range(3000))) + "\n" + "1\n" * 3000, "row 1 has 1 cells, and the head 3,000"),
        (METRICS + "3,1,1,1,1,1\n", "row 4 has 6 cells, and the head 5"),
    ],
)
def test_rows_of_other_lengths_are_refused(tmp_path, metrics, told):
    folder = write_run(tmp_path / "run")
    (folder / "metrics.csv").write_text(metrics)
    with pytest.raises(CheckpointError, match=told):
        write_report(folder)


def test_numbers_that_cannot_be_drawn_leave_a_gap(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "metrics.csv").write_text("epoch,lr,x\n0,1.7e308,1e308\n1,1e-3,-1e308\n2,5e-324,0.5\n3,inf,nan\n")
    assert "x, epoch 2: 0.5" in write_report(folder).read_text()


def test_of_large_tables_the_first_rows_are_shown_and_it_is_said(tmp_path):
    folder = write_run(tmp_path / "run", account=[{"policy": "a"}] * (MOST_ROWS + 1))
    names = [f"c{n}" for n in range(MOST_COLUMNS + 5)]
    (folder / "metrics.csv").write_text(",".join(names) + "\n" + ",".join("1" * len(names)) + "\n")
    text = write_report(folder).read_text()
    assert "of 10,001 rows of the account the first 10,000 are shown" in text
    assert "of 205 columns of metrics.csv the first 200 are shown" in text
    assert "c199" in text and "c200" not in text


def test_a_latency_that_only_the_thinned_network_has_is_compared(tmp_path):
    folder = write_run(tmp_path / "run")
    known = summary()
    del known["dense"]["latency_ms"]["1"]
    (folder / "summary.json").write_text(json.dumps(known))
    runs = list(runs_in([folder]))
    assert "ms at batch 1" in write_comparison_report(tmp_path, runs).read_text()
    if find_spec("matplotlib"):
        assert all(path.stat().st_size for path in plot_tradeoff(runs, tmp_path / "x"))


def test_runs_of_ever_other_layers_are_not_laid_side_by_side(tmp_path):
    folder = write_run(tmp_path / "run", layers=[layer(str(number)) for number in range(MOST_ROWS + 1)])
    with pytest.raises(CheckpointError, match="summary.json: with it there are more than 10,000 layers"):
        write_comparison_report(tmp_path, list(runs_in([folder])))


@pytest.mark.parametrize("name", FILES)
def test_files_of_a_run_are_read_up_to_8_mib(tmp_path, name):
    folder = write_run(tmp_path / "run")
    with (folder / name).open("ab") as file:
        file.truncate(1 << 42)  # of holes
    with pytest.raises(CheckpointError, match=f"has more than 8 MiB.*{name}"):
        write_report(folder)


def test_a_file_of_8_mib_is_read(tmp_path):
    path = write_run(tmp_path / "run") / "summary.json"
    for more, is_read in ((0, True), (1, False)):
        path.write_bytes(path.read_bytes().ljust(MOST + more))
        if is_read:
            assert read_run(path.parent).zeros == 1.25
        else:
            with pytest.raises(CheckpointError, match="has more than 8 MiB"):
                read_run(path.parent)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (",".join(["a"] * 300_000) + "\n1\n", "300,000 columns are too many for a picture"),
        (",".join(map(str, range(150))) + "\n" + "1\n" * 1000, "1,001 rows have not 150 cells each"),
        (",".join(map(str, range(150))) + "\r" + "1\r" * 1000, "1,001 rows have not 150 cells each"),
        ("\n" * 1000, "no table"),
    ],
)
def test_tables_are_looked_over_before_they_are_read(tmp_path, content, told):
    (tmp_path / "metrics.csv").write_text(content, newline="")
    with pytest.raises(ValueError, match=told):
        read_table(tmp_path, "metrics.csv", [])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_small_tables_are_read(tmp_path, end):
    (tmp_path / "metrics.csv").write_text(f"a,b{end}1,{end}3,4", newline="")
    assert read_table(tmp_path, "metrics.csv", ["a", "b"]).shape == (2, 2)


def test_reports_go_into_folders_whose_names_are_no_text(tmp_path):
    folder = write_run(tmp_path / NO_TEXT / NO_TEXT)
    pages = [write_report(folder).read_text()]
    pages.append(write_comparison_report(folder.parent, list(runs_in([folder]))).read_text())
    assert all("\\udcff\\n\\x1b[31mb" in page and "\x1b" not in page for page in pages)
    assert 'href="a%FF%0A%1B%5B31mb/report.html"' in pages[1]


def test_exports_go_into_folders_whose_names_are_no_text(tmp_path):
    folder, victim = tmp_path / NO_TEXT, tmp_path / "victim"
    folder.mkdir()
    victim.write_text("precious")
    (folder / NO_TEXT).symlink_to(victim)

    def write_text(model, example, path, metadata):
        assert is_text(path), "torch's own writer ends the process"
        path.write_text("exported")
        path.with_name(f"{path.name}.data").write_text("weights")

    found = write(Export(write_text, Path("x"), ""), nn.Linear(2, 2), torch.ones(2, 2), folder / NO_TEXT, {})
    assert found.bytes == 15 and (folder / NO_TEXT).read_text() == "exported" and victim.read_text() == "precious"
    assert {path.name for path in folder.iterdir()} == {NO_TEXT, "a?\n\x1b[31mb.data"}


def test_tensorboard_cannot_write_there_and_says_so(tmp_path):
    pytest.importorskip("tensorboard")
    with pytest.raises(UsageError, match="--tensorboard cannot write into a folder whose name is not UTF-8"):
        EventWriter(tmp_path / NO_TEXT)
