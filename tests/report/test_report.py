"""`report.html` says what the other files say, in one file that fetches nothing, whatever names are in it."""

import base64
import csv
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import compress_classifier
from potstill.command.compare import read_run, runs_in
from potstill.command.report import write_comparison_report, write_report
from potstill.command.report.charts import HEIGHT, WIDTH, line_chart, scatter
from potstill.compression import CheckpointError

from .folders import HOSTILE, SHOWN, summary, write_run

ROOT = Path(__file__).parents[2]
VOID = {"meta", "link"}


class Page(HTMLParser):
    """The elements of a page: tags with their attributes, the text of each table row, and all text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.text, self.open = [], [], "", []
        self.feed(text)
        self.close()
        assert self.open == [], "elements that are not closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.rows and self.rows[-1] and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data.strip()

    def found(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page(tmp_path):
    return Page(write_report(write_run(tmp_path / "run")).read_text())


def test_it_says_what_the_summary_says(page):
    known = summary()
    rows = page.rows
    assert ["parameters", "1,000", "1,000", "600"] in rows and ["MACs", "10,000", "10,000", "6,000"] in rows
    assert ["bytes, packed", "3,000", "3,000", "1,800"] in rows
    assert ["test top1 (%)", "93.00", "91.50", "91.50"] in rows
    assert ["gates", "conv1.weight", "5", "4", "epoch 1"] in rows and ["gates", "fc.weight", "", "7", "epoch 1"] in rows
    for layer in known["layers"]:
        (row,) = (row for row in rows if row[0] == layer["layer"])
        assert [row[1], row[2], row[5], row[6]] == [
            str(layer[name]) for name in ("before", "after", "parameters_before", "parameters_after")
        ]
        assert float(row[3]) == pytest.approx(100 * layer["after"] / layer["before"], abs=0.05)
    assert ["onnx", "thinned.onnx", "4,321", "2e-07", "91.5", ""] in rows
    assert ["gates", "x", "", "", "", "no such thing"] in rows
    assert ["2", "gates.weight dim 0", "a constant meets padding"] in rows
    for text in ("60.0 %", "a note", "epoch 2, the last", "x.py gates", "policies:\n  - {}", "tiny on digits"):
        assert text in page.text
    bars = [(float(a.get("x", 0)), float(a["width"])) for a in page.found("rect") if a["class"] == "fill"]
    assert bars == [(1, 2), *((0, layer["after"]) for layer in known["layers"])]


def test_commands_go_on_load_and_export(page, tmp_path):
    assert f"compress-classifier --resume-from {tmp_path / 'run'} --export-onnx" in page.text
    assert "create_model('tiny', 10, 1)" in page.text
    assert f"load(model, '{tmp_path / 'run' / 'thinned.safetensors'}')" in page.text


def test_nothing_comes_from_outside(page):
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "poster", "data", "xlink:href"):
            assert attributes.get(name, "data:,") == "data:,", (tag, attributes)
        assert "style" not in attributes and not any(name.startswith("on") for name in attributes)
    assert not re.search(r"@import|url\(", page.text)


def test_only_our_script_may_run(page):
    """The policy names the digests of what is there, as browsers compute them."""
    (policy,) = (a["content"] for a in page.found("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    templates = ROOT / "command" / "report" / "templates"
    for kind, name in (("script", "table.js"), ("style", "style.css")):
        text = (templates / name).read_text()
        assert page.text.count(text) == 1 and len(page.found(kind)) == 1
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_names_are_text(tmp_path):
    folder = write_run(tmp_path / "run", name=HOSTILE, arch=HOSTILE, notes=[HOSTILE])
    found = Page(write_report(folder).read_text())
    plain = Page(write_report(write_run(tmp_path / "other")).read_text())
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in plain.tags]
    assert found.text.count(SHOWN) >= 6
    assert "\u202e" not in found.text and "\x1b" not in found.text
    runs = [read_run(folder, HOSTILE)]
    many = Page(write_comparison_report(tmp_path, runs, [HOSTILE], {HOSTILE: HOSTILE}).read_text())
    assert many.text.count(SHOWN) >= 4 and not many.found("img")


@pytest.mark.parametrize("name", ["summary.json", "metrics.csv", "schedule.yaml", "environment.json"])
def test_files_are_not_read_through_links(tmp_path, name):
    folder, secret = write_run(tmp_path / "run"), tmp_path / "secret"
    (folder / name).rename(secret)
    (folder / name).symlink_to(secret)
    with pytest.raises(CheckpointError, match=f"{name}: is a link or no regular file: remove it$"):
        write_report(folder)


def test_a_link_under_its_name_is_replaced(tmp_path):
    folder, victim = write_run(tmp_path / "run"), tmp_path / "victim"
    victim.write_text("precious")
    (folder / "report.html").symlink_to(victim)
    assert write_report(folder).read_text().startswith("<!doctype html>")
    assert victim.read_text() == "precious" and not (folder / "report.html").is_symlink()


@pytest.mark.parametrize(
    "change",
    [
        {"layers": [{"layer": "a", "before": "1", "after": 1}]},
        {"policies": [{"name": 1}]},
        {"account": [1]},
        {"zeros": "many"},
        {"masked": {"parameters": []}},
        {"refused": {"a": 1}},
        {"epochs": -1},
    ],
)
def test_what_is_damaged_is_said_in_one_line(tmp_path, change):
    with pytest.raises(CheckpointError, match=r"^\S+(summary.json)?: ") as caught:
        write_report(write_run(tmp_path / "run", **change))
    assert "\n" not in str(caught.value) and not (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("metrics", ["epoch,lr\n0,x\n", "epoch,lr\n0,1,2\n", "epoch\n" + "a" * 200_000, "\udcff"])
def test_damaged_metrics_are_said_in_one_line(tmp_path, metrics):
    folder = write_run(tmp_path / "run")
    (folder / "metrics.csv").write_bytes(metrics.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match="metrics.csv: "):
        write_report(folder)


def test_summaries_of_earlier_versions_have_less(tmp_path):
    folder = write_run(tmp_path / "run")
    names = ["dense", "masked", "thinned", "max_relative_difference", "network", "zeros", "gone", "account"]
    (folder / "summary.json").write_text(json.dumps({name: summary()[name] for name in names}))
    for name in ("metrics.csv", "schedule.yaml", "environment.json"):
        (folder / name).unlink()
    assert ["parameters", "1,000", "1,000", "600"] in Page(write_report(folder).read_text()).rows


def test_a_comparison_has_all_runs_and_leads_to_their_reports(tmp_path):
    sizes = {"key=0.3": (700, 92.0), "key=0.5": (500, 91.0), "key=0.7": (300, 85.0), "worse": (800, 84.0)}
    for name, (parameters, top1) in sizes.items():
        write_report(write_run(tmp_path / name, parameters=parameters, top1=top1))
    runs = [read_run(tmp_path / name, name) for name in sizes]
    found = Page(write_comparison_report(tmp_path, runs, ["asked"], {"late": "it broke"}).read_text())
    rows = {row[0]: row for row in found.rows}
    for name, (parameters, top1) in sizes.items():
        assert float(rows[name][1]) == top1 and rows[name][3] == str(parameters)
        assert rows[name][-1] == ("" if name == "worse" else "all")
    links = [a["href"] for a in found.found("a")]
    assert links == [f"{name.replace('=', '%3D')}/report.html" for name in sizes]
    assert ["conv1", "20", "12", "12", "12", "12"] in found.rows
    assert "it broke" in found.text
    with pytest.raises(CheckpointError, match="holds no finished run"):
        runs_in([tmp_path / "nothing"])


def test_the_command_line_compares(tmp_path, capsys):
    runs = [write_run(tmp_path / name, parameters=parameters) for name, parameters in (("one", 700), ("two", 500))]
    assert compress_classifier.main(["--compare", *map(str, runs), "-o", str(tmp_path / "out")]) == 0
    (folder,) = (tmp_path / "out").iterdir()
    rows = list(csv.DictReader((folder / "compare.csv").open()))
    told = [(row["run"], row["parameters"], row["front"]) for row in rows]
    assert told == [("one", "700", ""), ("two", "500", "all")]
    assert {"compare.csv", "compare.png", "compare.svg", "report.html"} <= {path.name for path in folder.iterdir()}
    assert "two" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        compress_classifier.main(["--compare", str(tmp_path), "-o", str(tmp_path / "out")])
    assert "holds no finished run (summary.json is missing)" in capsys.readouterr().err


def test_each_run_is_compared_once_under_a_name_of_its_own(tmp_path, caplog):
    sweep = tmp_path / "a" / "sweep"
    folders = [write_run(path) for path in (tmp_path / "a" / "one", tmp_path / "b" / "one", sweep / "x=1")]
    (sweep / "sweep.json").write_text("{}")
    (sweep / "x=2").mkdir()
    (sweep / "x=2" / "checkpoint.pt").touch()
    (tmp_path / "latest").symlink_to(folders[0])
    found = runs_in([folders[0], tmp_path / "latest", folders[1], sweep, sweep])
    assert [(run.name, run.path) for run in found] == list(zip(["a/one", "b/one", "sweep/x=1"], folders, strict=True))
    assert caplog.messages == [f"{sweep}: not finished and left out: x=2; --resume-from goes on with it"] * 2


def test_lines_lie_where_their_values_say():
    """The drawing's scale is linear: equal steps are equally far, gaps break the line, nothing leaves the drawing."""
    chart = line_chart("loss", {"a": [3.0, 2.0, None, 1.0], "b": [3.0, float("nan"), 1.0, 2.0]})
    dots = [[(dot.x, dot.y) for dot in line.dots] for line in chart.lines]
    (x0, y0), (x1, y1), (x3, y3) = dots[0]
    assert (x3 - x0) / (x1 - x0) == pytest.approx(3, abs=0.02) and (y3 - y0) / (y1 - y0) == pytest.approx(2, abs=0.02)
    assert y0 < y1 < y3 and dots[1][0] == (x0, y0)
    assert chart.lines[0].path.count("M") == 2 and chart.lines[1].path.count("M") == 2
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for line in dots for x, y in line)
    ticks = {text: place for place, text in chart.y_ticks}
    assert ticks["2"] == y1 and ticks["3"] == y0


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [1e-12, 1e12], [-1.0, 1.0], [None], []])
def test_all_values_can_be_drawn(values):
    for log in (False, True):
        chart = line_chart("x", {"x": values}, log)
        assert all(0 <= place <= HEIGHT for place, _ in chart.y_ticks)


def test_a_logarithmic_scale_has_equal_steps_for_equal_factors():
    chart = line_chart("lr", {"lr": [1.0, 0.1, 0.01]}, log=True)
    a, b, c = (dot.y for dot in chart.lines[0].dots)
    assert c - b == pytest.approx(b - a, abs=0.11)
    assert [text for _, text in chart.y_ticks] == ["0.01", "0.1", "1"]


def test_points_and_front():
    points = [(1.0, 50.0, "k=1"), (2.0, 60.0, "k=2"), (3.0, 55.0, "k=3")]
    chart = scatter("cost", points, [(4.0, 61.0, "dense")], [0, 1])
    assert [dot.label for dot in chart.points] == ["1", "2", "3"]
    assert chart.lines[0].path == f"M{chart.points[0].x} {chart.points[0].y} L{chart.points[1].x} {chart.points[1].y}"
    assert chart.dense[0].x > chart.points[2].x and chart.dense[0].y < chart.points[1].y
