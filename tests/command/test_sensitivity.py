"""`--sense`: the table, what it is made of, and its continuation after an interruption at any moment."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import compress_classifier
from potstill.command.cli.options import parse
from potstill.command.errors import UsageError
from potstill.command.modes.sensitivity_table import HEADER, Analysis, SensitivityTable, digest
from potstill.compression import load_schedule
from potstill.compression.latency.layers import Case
from potstill.compression.sensitivity import prunable_weights, tolerated_levels
from potstill.models import create_model

NET = ["-a", "simplenet_cifar", "--limit-train", "64", "--limit-test", "40", "--limit-validation", "20", "-b", "32"]
RANGE = ["--sense-range", "0", "0.8", "0.3"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder with a checkpoint after two epochs."""
    out = tmp_path_factory.mktemp("trained")
    assert compress_classifier.main([*NET, "--epochs", "2", "--lr", "0.05", "-o", str(out)]) == 0
    return out / "latest"


def sense(trained, folder, *more):
    arguments = ["--resume-from", str(trained), "--sense-folder", str(folder), *RANGE, *more]
    return compress_classifier.main(["--sense", "filter", *arguments] if "--sense" not in more else arguments)


@pytest.fixture(scope="module")
def done(trained, tmp_path_factory):
    """The folder of a whole analysis by filters."""
    folder = tmp_path_factory.mktemp("whole")
    assert sense(trained, folder, "--plot") == 0
    return folder


def test_table(done, trained, capsys):
    rows = list(csv.DictReader((done / "sensitivity.csv").open()))
    assert (done / "sensitivity.csv").read_text().startswith(HEADER)
    names = [f"{layer}.weight" for layer in ("conv1", "conv2", "fc1", "fc2", "fc3")]
    assert [(r["parameter"], r["sparsity"]) for r in rows] == [(n, s) for n in names for s in ("0.0", "0.3", "0.6")]
    assert compress_classifier.main(["--resume-from", str(trained), "-e"]) == 0
    told = capsys.readouterr().out
    for row in rows[::3]:
        scores = f"Top1: {float(row['top1']):.3f}    Top5: {float(row['top5']):.3f}    Loss: {float(row['loss']):.3f}"
        assert f"test ==> {scores}" in told
    assert len({row["loss"] for row in rows}) > 5


def test_where_nothing_may_go_there_is_no_schedule_and_it_is_said(trained, tmp_path, capsys):
    assert sense(trained, tmp_path, "--sense-weights", "conv1.weight", "--sense-range", "0", "0.2", "0.3") == 0
    assert "no schedule is written: even at the lowest sparsity no weight" in capsys.readouterr().out
    assert not (tmp_path / "sensitivity.yaml").exists()


def test_pictures(done):
    pictures = {str(path.relative_to(done)) for path in done.rglob("*.*g")}
    names = [f"sensitivity/{layer}.weight" for layer in ("conv1", "conv2", "fc1", "fc2", "fc3")]
    assert {f"{name}.{kind}" for name in ["sensitivity", *names] for kind in ("png", "svg")} <= pictures


def test_elements_on_validation_images_by_pattern(trained, tmp_path):
    more = ["--sense", "element", "--sense-weights", "conv?.weight", "--sense-on", "validation", "--sense-loss", "100"]
    assert sense(trained, tmp_path, *more) == 0
    rows = list(csv.DictReader((tmp_path / "sensitivity.csv").open()))
    assert {row["parameter"] for row in rows} == {"conv1.weight", "conv2.weight"}
    assert all(float(row["top1"]) % 5 == 0 for row in rows)  # of 20 images
    schedule = load_schedule(tmp_path / "sensitivity.yaml", create_model("simplenet_cifar"))
    (instance,) = schedule.instances.values()
    assert instance.args["levels"] == {"conv1.weight": 0.6, "conv2.weight": 0.6}


def test_schedule(done, trained, tmp_path):
    """Each weight at the highest level up to which no row of the table is more than the allowed loss below dense."""
    for loss in ("5", "1000"):
        assert sense(trained, done, "--sense-loss", loss) == 0  # the table is whole: nothing is evaluated again
        rows = list(csv.reader((done / "sensitivity.csv").open()))[1:]
        expected = {}
        for place in range(0, len(rows), 3):
            good = [float(row[2]) >= float(rows[0][2]) - float(loss) for row in rows[place : place + 3]]
            number = next((i for i, fits in enumerate(good) if not fits), 3) - 1
            if number > 0 and rows[place][0] != "fc3.weight":  # its filters are the classes
                expected[rows[place][0]] = float(rows[place + number][1])
        schedule = load_schedule(done / "sensitivity.yaml", create_model("simplenet_cifar"))
        instances = [instance.args for instance in schedule.instances.values()]
        assert {name: i["desired_sparsity"] for i in instances for name in i["weights"]} == expected
        assert {i["group_type"] for i in instances} == {"Filters"}
    assert set(yaml.safe_load((done / "sensitivity.yaml").read_text())) == {"pruners", "policies"}


@pytest.mark.parametrize("kind", ["element", "channel"])
def test_the_output_layer_is_left_out_and_told(trained, tmp_path, capsys, kind):
    assert sense(trained, tmp_path, "--sense", kind, "--sense-weights", "fc2*", "fc3*", "--sense-loss", "1000") == 0
    assert "the schedule leaves out the output layer: fc3." in capsys.readouterr().out
    text = (tmp_path / "sensitivity.yaml").read_text()
    assert "fc2.weight" in text and "fc3" not in text


def test_killed_runs_go_on_to_the_same_bytes(done, trained, tmp_path):
    """`kill -9` after a number of rows, twice, the second time behind half a row."""
    folder, out = tmp_path / "killed", tmp_path / "killed" / "sensitivity.csv"
    command = [sys.executable, compress_classifier.__file__, "--sense", "filter", "--resume-from", str(trained), *RANGE]
    for rows in (3, 7):
        threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums in the same order as here
        process = subprocess.Popen([*command, "--sense-folder", str(folder)], stdout=subprocess.DEVNULL, env=threads)
        while process.poll() is None and (not out.exists() or out.read_bytes().count(b"\n") <= rows):
            time.sleep(0.002)
        process.kill()
        process.wait()
        content = out.read_bytes()
        assert content.count(b"\n") > rows
        out.write_bytes(content[:-7])
    assert sense(trained, folder) == 0
    assert out.read_bytes() == (done / "sensitivity.csv").read_bytes()


def test_ctrl_c_says_how_to_go_on(trained, monkeypatch, capsys):
    """Without a folder of its own the table lies in the run folder."""
    append, arguments = SensitivityTable.append, ["--sense", "filter", "--resume-from", str(trained), *RANGE]

    def interrupted(table, row):
        append(table, row)
        raise KeyboardInterrupt

    monkeypatch.setattr(SensitivityTable, "append", interrupted)
    with pytest.raises(SystemExit) as caught:
        compress_classifier.main([*arguments, "--sense-weights", "conv1.weight"])
    assert caught.value.code == 130
    assert f"go on with the same command and --sense-folder {trained}" in capsys.readouterr().out
    monkeypatch.undo()
    assert compress_classifier.main([*arguments, "--sense-weights", "conv1.weight"]) == 0
    assert "goes on after 1 of 3 rows" in capsys.readouterr().out
    assert (trained / "sensitivity.csv").read_text().count("\n") == 4


ANALYSIS = Analysis("filter", [0.0, 0.5], ["a", "b,c"], "net", "w", "i", 8, "cpu")
ROWS = [("a", 0.0, 1 / 3, 100.0, 2.5), ("a", 0.5, 0.1, 50.0, float("nan")), ("b,c", 0.0, 1e-9, 0.0, float("inf"))]


@pytest.fixture
def whole(tmp_path):
    (tmp_path / "whole").mkdir()
    table = SensitivityTable(tmp_path / "whole", ANALYSIS)
    for row in ROWS:
        table.append(row)
    return table


def test_a_table_cut_off_anywhere_goes_on_to_the_same_bytes(whole):
    content = whole.path.read_bytes()
    for length in range(len(content) + 1):
        whole.path.write_bytes(content[:length])
        again = SensitivityTable(whole.path.parent, ANALYSIS)
        assert len(again.rows) == max(content[:length].count(b"\n") - 1, 0)
        for row in ROWS[len(again.rows) :]:
            again.append(row)
        assert whole.path.read_bytes() == content
    whole.path.unlink()  # killed before the first line
    assert SensitivityTable(whole.path.parent, ANALYSIS).rows == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"levels": [0.0, 0.6]}, "it was made with other sparsities (--sense-range)"),
        ({"weights": "v", "images": "j"}, "made with other weights (the checkpoint) and other images (--dataset,"),
        ({"structure": "channel"}, "it was made with another structure (--sense); --sense-folder DIR begins another"),
    ],
)
def test_a_table_of_another_analysis_is_refused(whole, changed, message):
    content = whole.path.read_bytes()
    with pytest.raises(UsageError) as caught:
        SensitivityTable(whole.path.parent, Analysis(**{**vars(ANALYSIS), **changed}))
    assert message in str(caught.value)
    assert whole.path.read_bytes() == content


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("parameter,", "Parameter,", "its first line is not parameter,sparsity,top1,top5,loss"),
        ("a,0.5", "a,0.6", "its line 3 is none that this analysis wrote"),
        ("100.0", "100.00", "its line 2 is none that this analysis wrote"),
        ("50.0", "fifty", "its line 3 is none that this analysis wrote"),
    ],
)
def test_a_changed_table_is_refused(whole, old, new, message):
    whole.path.write_text(whole.path.read_text().replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        SensitivityTable(whole.path.parent, ANALYSIS)
    assert message in str(caught.value)


def test_a_table_without_its_description_is_refused(whole):
    whole.description.write_text("[1")
    with pytest.raises(UsageError, match="sensitivity.json, which says how it was made, cannot be read"):
        SensitivityTable(whole.path.parent, ANALYSIS)
    whole.description.unlink()
    with pytest.raises(UsageError, match="sensitivity.json, which says how it was made, is missing"):
        SensitivityTable(whole.path.parent, ANALYSIS)


def test_digests_see_each_bit_and_name():
    tensors = {"a": torch.zeros(2, 3), "b": torch.tensor(1), "c": torch.zeros(3, dtype=torch.bfloat16)}
    others = [
        {**tensors, "a": torch.zeros(3, 2)},
        {**tensors, "a": torch.tensor([[0, 0, 0], [0, 0, -0.0]])},
        {**tensors, "c": torch.zeros(3, dtype=torch.float16)},
        {("d" if name == "b" else name): tensor for name, tensor in tensors.items()},
    ]
    assert digest({name: tensor.clone() for name, tensor in tensors.items()}) == digest(tensors)
    assert len({digest(other) for other in [tensors, *others]}) == 5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--sense", "filters"], "argument --sense: invalid choice: 'filters'"),
        (["--sense-range", "0.5", "0.2", "0.1"], "--sense-range 0.5 0.2 0.1: must be 0 <= START < STOP <= 1"),
        (["--sense-range", "0", "nan", "0.1"], "--sense-range 0 nan 0.1: must be 0 <= START < STOP <= 1"),
        (["--sense-range", "0", "1", "1e-9"], "--sense-range 0 1 1e-09: more than 1000 sparsities"),
        (["--sense-weights", "conv3.weight"], "--sense-weights: the name 'conv3.weight' fits no parameter"),
        (["--sense-weights", "*.bias"], "--sense filter: Filters needs a weight of 2 dimensions or more; conv1.bias"),
        (["--sense-weights", "fc1.bias"], "--sense filter: Filters needs a weight of 2 dimensions or more; fc1.bias"),
        (["--sense", "channel"], "sensitivity.csv cannot go on: it was made with another structure (--sense); --sense"),
        (["--limit-test", "30"], "sensitivity.csv cannot go on: it was made with other images (--dataset"),
        (["--sense-range", "0", "0.8", "0.1"], "it was made with other sparsities (--sense-range); --sense-folder DIR"),
    ],
)
def test_mistakes_are_one_line(done, trained, capsys, more, message):
    before = (done / "sensitivity.csv").read_bytes()
    with pytest.raises(SystemExit) as caught:
        sense(trained, done, *more)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert (done / "sensitivity.csv").read_bytes() == before


def test_an_untrained_network_is_warned_of(tmp_path, capsys):
    few = ["--sense-weights", "conv1.weight", "--sense-range", "0.5", "0.6", "0.1"]
    assert compress_classifier.main([*NET, "--sense", "element", *few, "-o", str(tmp_path)]) == 0
    assert "warning: the network is not trained: --resume-from gives one that is" in capsys.readouterr().out
    rows = list(csv.reader(next(tmp_path.glob("*/sensitivity.csv")).open()))
    assert [row[:2] for row in rows[1:]] == [["conv1.weight", "0.5"]]


def test_another_checkpoint_is_refused(done, trained, capsys):
    assert json.loads((done / "sensitivity.json").read_text())["arch"] == "simplenet_cifar"
    arguments = [*NET, "--resume-from", str(trained / "checkpoint.pt.previous"), "--sense", "filter", *RANGE]
    with pytest.raises(SystemExit):
        compress_classifier.main([*arguments, "--sense-folder", str(done)])
    assert "it was made with other weights (the checkpoint);" in capsys.readouterr().err


PAGE = (Path(__file__).parents[2] / "docs" / "sensitivity.md").read_text()
TABLE = Path(__file__).parents[2] / "docs" / "results" / "sensitivity_googlenet.csv"


def test_page_names_options_and_files_that_exist():
    commands = re.findall(r"^    python compress_classifier\.py ((?:.*\\\n)*.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        arguments = shlex.split(command.replace("\\\n", " "))
        parse([argument for argument in arguments if argument not in ("--resume-from", "runs/latest")])
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (TABLE.parents[1] / link).exists(), link
    listed = re.findall(r"^\| `(--[\w-]+)", PAGE, re.MULTILINE)
    assert set(vars(parse([]).sensitivity)) <= {option[2:].replace("-", "_") for option in listed}


def test_shown_table_is_whole_and_of_this_network():
    """The digits of a real run: a header, 50 weights at 19 sparsities, and the levels that the page shows."""
    header, *rows = csv.reader(TABLE.open())
    assert ",".join(header) + "\n" == HEADER
    names = prunable_weights(create_model("googlenet_cifar"), "filter")
    sparsities = parse([]).sensitivity.levels()
    assert [(row[0], float(row[1])) for row in rows] == [(name, level) for name in names for level in sparsities]
    found = tolerated_levels([(row[0], float(row[1]), float(row[2])) for row in rows], float(rows[0][2]) - 1)
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (pruner,) = load_schedule(yaml.safe_load(shown), create_model("googlenet_cifar")).instances.values()
    for name in pruner.args["weights"]:
        assert found[name] == pruner.args["desired_sparsity"]


def test_python_of_the_page_runs():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    model = create_model("simplenet_cifar")
    space = {"model": model, "images": torch.randn(2, 3, 32, 32), "evaluate": lambda net: 98.0}
    exec(code, space)
    assert space["levels"] == dict.fromkeys(prunable_weights(model, "filter"), 0.6)


def test_weights_by_what_a_millisecond_costs(done, trained, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Case, "milliseconds", lambda case, inputs, outputs: 0.1 + 1e-4 * inputs * outputs)
    more = ["--sense-latency", "4", "--sense-loss", "100", "--table", "markdown"]
    assert sense(trained, done, *more) == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| fc")]
    found = {row[0].strip(): [float(cell) for cell in row[1:]] for row in rows if "nan" not in row[-1]}
    level, _, saved, price = found["fc2.weight"]
    # each of its 84 units takes 120 inputs of its own and 10 outputs of fc3
    assert saved == pytest.approx(level * 84 * 130 * 1e-4, rel=1e-3)
    prices = [row[-1] for row in found.values()]
    assert prices == sorted(prices) and price >= 0


def test_a_batch_without_an_analysis_is_told(capsys):
    with pytest.raises(SystemExit):
        compress_classifier.main([*NET, "--sense-latency", "4"])
    assert "--sense-latency is about a sensitivity analysis" in capsys.readouterr().err


def test_elements_save_no_time(trained, tmp_path, capsys):
    with pytest.raises(SystemExit):
        sense(trained, tmp_path, "--sense", "element", "--sense-latency", "1")
    assert "--sense-latency: single weights that are 0 save no time" in capsys.readouterr().err
