"""Every shipped schedule says in its header how it runs, loads for that network, and stands in the index."""

import importlib.util
import json
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

import compress_classifier
from potstill.compression.declare.registry import registered
from potstill.compression.schedule import find_schedule

ROOT = Path(__file__).parents[1]


def load(file: str, name: str):
    """A module of `benchmarks/`, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / file)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


headers = load("schedule_headers.py", "schedule_headers")
runner = load("schedules.py", "benchmarks_schedules")
ALL = headers.shipped()
RUN = [schedule for schedule in ALL if schedule.path.parent.name in headers.FOLDERS]


def by_name(schedule):
    return schedule.name


def classes(section: str) -> set[str]:
    """The classes of a section that shipped schedules use."""
    files = (yaml.safe_load(schedule.path.read_text()) for schedule in ALL)
    return {instance["class"] for file in files for instance in (file.get(section) or {}).values()}


@pytest.mark.parametrize("schedule", ALL, ids=by_name)
def test_loads_for_the_network_of_its_command(schedule, capsys, monkeypatch, tmp_path):
    arguments = runner.own(schedule)
    assert headers.option(schedule.commands[0], "--compress") == f"schedules/{schedule.name}.yaml"
    for name in ("--exp-load-weights-from", "--resume-from"):
        if name in arguments:
            del arguments[arguments.index(name) : arguments.index(name) + 2]
    monkeypatch.chdir(tmp_path)
    assert compress_classifier.main([*arguments, "--dry-run"]) == 0
    assert "instance" in capsys.readouterr().out
    assert not list(tmp_path.iterdir()), "a dry run leaves nothing behind"


@pytest.mark.parametrize("schedule", ALL, ids=by_name)
def test_header_tells_baseline_and_result(schedule):
    text = "\n".join(schedule.header).lower()
    assert "baseline" in text
    assert "result" in text


@pytest.mark.parametrize("schedule", RUN, ids=by_name)
def test_header_has_the_figures_of_a_run(schedule):
    result = schedule.figures("Result")
    assert len(result) == 4
    if schedule == schedule.dense:
        return
    assert schedule.figures("Baseline")[:3] == schedule.dense.figures("Result")[:3]
    assert re.search(r"zeros [\d.]+ % of [\d,]+ parameters", "\n".join(schedule.header))


@pytest.mark.parametrize("schedule", RUN, ids=by_name)
def test_header_tells_how_the_dense_network_is_made(schedule):
    mine, dense = schedule.commands[0], schedule.dense
    assert schedule.commands[-1] == dense.commands[0]
    weights = headers.option(mine, "--exp-load-weights-from")
    assert weights in ("", f"{headers.option(dense.commands[0], '-o')}/latest/checkpoint.pt")


def test_index_is_what_the_headers_say():
    assert headers.INDEX.read_text() == headers.index(ALL), "run: python benchmarks/schedules.py --index"
    for schedule in ALL:
        assert f"({schedule.name}.yaml)" in headers.INDEX.read_text()


def test_index_shows_how_to_make_the_dense_networks():
    for schedule in RUN:
        if schedule == schedule.dense:
            assert schedule.commands[0] in headers.commands(headers.INTRODUCTION)


@pytest.mark.parametrize("section", ["pruners", "regularizers", "extensions"])
def test_every_method_has_a_schedule(section):
    """Of a one-shot class and its gradual form, one is enough; so is one of the names that a class has."""
    ours = {name: cls for name, cls in registered(section).items() if cls.__module__.startswith("potstill.")}
    shown = {ours[name] for name in classes(section)}
    siblings = {ours.get(f"{name}_AGP".replace("_AGP_AGP", ""), cls) for name, cls in ours.items() if cls in shown}
    missing = [name for name, cls in ours.items() if cls not in shown | siblings]
    assert not missing


@pytest.mark.parametrize("schedule", ALL, ids=by_name)
def test_is_packaged_and_found_by_name(schedule):
    patterns = ("*.yaml", "*/*.yaml")
    assert all(f'"{pattern}"' in (ROOT / "setup.py").read_text() for pattern in patterns)
    depth = schedule.name.count("/")
    assert fnmatch(f"{schedule.name}.yaml", patterns[depth])
    assert find_schedule(schedule.name) == find_schedule(schedule.path.stem)
    assert find_schedule(schedule.name).samefile(schedule.path)


LOG = """\
2026-11-21 03:42:16,464 INFO +---+
| Name            | Shape     |   NNZ (dense) |   NNZ (sparse) |   Cols (%) |   Rows (%) |   Fine (%) |    Std |
|-----------------+-----------+---------------+----------------+------------+------------+------------+--------|
| fc1.weight      | (500, 800) |       400,000 |        100,000 |          0 |         50 |         75 |   0.17 |
| fc2.weight      | (10, 500) |         5,000 |          5,000 |          0 |          0 |          0 |   0.17 |
+---+
zeros 69.59 % of 431,080 parameters, mean 0.001
2026-11-21 03:42:20,154 INFO +---+
|                |     dense |    masked |   thinned |
| parameters     |   431,080 |   431,080 |   431,080 |
"""


def test_header_is_filled_from_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "SCHEDULES", tmp_path / "schedules")
    file = tmp_path / "schedules" / "elements" / "one.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "# A method: what it does\n# Paper: Somebody 2020, Title.\n#\n"
        "#   python compress_classifier.py --arch lenet --dataset digits \\\n"
        "#     --compress schedules/elements/one.yaml\n#\n"
        "# Baseline: old\n# Result: old\n#\n# more that is old\n\npolicies: []\n"
    )
    for name, top1, gone in (("lenet", 99.0, 0.0), ("one", 98.5, 40.0)):
        latest = tmp_path / "runs" / name / "latest"
        latest.mkdir(parents=True)
        network = {"top1": top1, "parameters": 1000, "macs": 20000}
        (latest / "summary.json").write_text(json.dumps({"thinned": network, "gone": gone, "zeros": 10.0}))
        (latest / "environment.json").write_text('{"torch": "2.9.0+cpu"}')
        (latest / "run.log").write_text(LOG)
    schedule = headers.Shipped(file)
    runner.write_header(schedule, tmp_path)
    runner.write_header(schedule, tmp_path)
    assert schedule.figures("Baseline") == ("99.00", "1,000", "20,000", "")
    assert schedule.figures("Result") == ("98.50", "1,000", "20,000", "46.00")
    assert (schedule.method, schedule.paper) == ("A method", "Somebody 2020, Title")
    text = file.read_text()
    assert "old" not in text
    assert text.endswith("\n\npolicies: []\n")
    assert schedule.header[-1].split() == ["zeros", "69.59", "%", "of", "431,080", "parameters"]
    assert [line.split() for line in schedule.header[-3:-1]] == [
        ["Name", "Shape", "NNZ", "(dense)", "NNZ", "(sparse)", "Rows", "(%)", "Fine", "(%)"],
        ["fc1.weight", "(500,", "800)", "400,000", "100,000", "50", "75"],
    ]


def test_what_headers_in_other_forms_say_goes_on_in_small_letters(tmp_path):
    file = tmp_path / "one.yaml"
    text = "# What. More\n#\n# Published baseline: 90 %\n# and so\n# Result:  91 %\n#   and 92 %\n# Else: no\n"
    file.write_text(text)
    schedule = headers.Shipped(file)
    assert schedule.title == "What"
    assert (schedule.says("Baseline"), schedule.says("Result")) == ("90 % and so", "91 % and 92 %")


def test_a_run_is_repeated_when_its_schedule_changes():
    one, other = ALL[0], ALL[1]
    assert runner.recipe(one) == runner.recipe(headers.Shipped(one.path))
    assert runner.recipe(one) != runner.recipe(other)
