"""Each benchmark runs in its smallest form, and the options that pages and scripts name are those of the scripts."""

import importlib.util
import json
import re
import sys
import time
from inspect import signature
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.utils import save_image

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))
NO_SMALL_FORM = {"coverage", "fuzz", "fuzz_coverage", "ranks"}
PASSES_ON = {"resnet20_cifar10"}
"""Scripts that give what they do not know to the command line."""


@pytest.fixture
def load(monkeypatch):
    """Import a benchmark by name; what it leaves in the process is taken back."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    threads = torch.get_num_threads()

    def module_of(name):
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    yield module_of
    torch.set_num_threads(threads)


@pytest.fixture
def call(load, monkeypatch, capsys):
    """Call a benchmark's main as the shell would, with constants of its module changed; return what it prints."""

    def run(name, *arguments, **constants):
        module = load(name)
        for constant, value in constants.items():
            monkeypatch.setattr(module, constant, value)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        module.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def images(tmp_path):
    """A folder of two images for each of ten classes, to train and to test on."""
    for part in ("train", "test"):
        for label in range(10):
            folder = tmp_path / "images" / part / str(label)
            folder.mkdir(parents=True)
            for number in range(2):
                save_image(torch.rand(3, 32, 32), folder / f"{number}.png")
    return tmp_path / "images"


def test_asked_hidden(call):
    def small():
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(6 * 60 * 60, 4))

    text = call("asked_hidden", "--levels", 0.5, NETWORKS={"small": small})
    assert re.search(r"\| small \| Filters \| 50 % \| 7 \| 7 \| 0 of 2 ", text), text


def test_distillation(call, tmp_path, monkeypatch):
    from potstill.command.run import size_report

    monkeypatch.setattr(size_report, "SECONDS", 0.0)
    monkeypatch.setattr(size_report, "BATCHES", (1,))
    few = ["--teacher-epochs", 1, "--teacher-images", 40, "--images", 40, "--epochs", 1, "--seeds", 2]
    text = call("distillation", "--teacher", "mlp", "--student", "mlp", *few, "--out", tmp_path)
    assert "paired difference" in text and "of 2 pairs" in text


@pytest.mark.parametrize("method", ["kthvalue", "threshold", "in place"])
def test_global_pruning(call, method):
    seconds, extra = map(float, call("global_pruning", "--millions", 1, "--threads", 1, "--only", method).split())
    assert seconds > 0 and extra >= 0


def test_l0_overhead(call, load):
    assert re.search(r"^ratio: \d", call("l0_overhead", "--batch", 2, "--pairs", 1, WARM_UP=0), re.MULTILINE)


def test_l0_googlenet(load, images, tmp_path, monkeypatch):
    """Each row's schedule is one of googlenet_cifar, and its options are those of the command line."""
    from potstill.command.cli.options import parse
    from potstill.compression import load_schedule
    from potstill.models import create_model, registry

    for name in ("_infos", "_factories"):  # the controls bring a network of their own
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))

    module = load("l0_googlenet")
    options = module.parse(["--data", str(images), "--out", str(tmp_path / "out"), "--kept", str(tmp_path / "kept")])
    model = create_model("googlenet_cifar")
    for row in module.rows(options.rows):
        for phase in module.phases(row, options.rows, lambda row: 0.5, lambda row: tmp_path / row.name):
            assert load_schedule(phase.schedule, model).policies
            (options.folder / phase.folder).mkdir(parents=True)
            given = parse(list(map(str, module.asked(phase, row, options))))
            assert (given.training.epochs, given.training.seed) == (phase.epochs, row.seed)


def test_the_table_of_googlenet_is_that_of_its_results(load):
    """The page has what `results.json` has, and each row that the results name is there."""
    module = load("l0_googlenet")
    folder = module.KEPT / "cpu"
    if not folder.exists():
        pytest.skip("no row is finished yet")
    found = json.loads((folder / "results.json").read_text())
    assert module.results.table(found) in module.PAGE.read_text()
    assert all((folder / facts["file"]).exists() for facts in found)


def test_the_picture_of_googlenet_has_the_kinds_of_its_rows(load, tmp_path):
    kinds = {"dense": 0.0, "target": 0.5, "strength": 0.4, "scratch": 0.5}
    found = [{"kind": kind, "sparsity": part, "test_top1": 80.0} for kind, part in kinds.items()]
    load("l0_googlenet").results.draw(found, tmp_path / "table")
    drawn = (tmp_path / "table.svg").read_text()
    assert all(f"<!-- {text} -->" in drawn for text in ("published", "dense", "gates, target", "gates, strength"))


def test_a_row_of_googlenet_beats_what_is_no_sparser_and_less_accurate(load):
    module = load("l0_googlenet")
    facts = {"test_top1": 88.0, "sparsity": 0.5499}
    assert module.results.beats(facts) == [(87.87, 0.06), (86.56, 0.22), (82.79, 0.55)]


@pytest.mark.slow
def test_l0_googlenet_trains_a_table_and_verifies_it(load, images, tmp_path, capsys):
    module = load("l0_googlenet")
    given = ["--data", str(images), "--out", str(tmp_path / "out"), "--kept", str(tmp_path / "kept")]
    module.main(
        [
            *given,
            "--protocol",
            "test",
            "--train",
            "18",
            "--only",
            "coupled_target_0.64",
            "--only",
            "scratch_target_0.64",
        ]
    )
    assert "dense" in capsys.readouterr().out
    module.main([*given, "--protocol", "test", "--verify"])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if "coupled" in line or "target" in line]
    assert rows and all(row[2].strip() == row[3].strip() for row in rows)


def test_resnet20_cifar10(load, images, tmp_path):
    module = load("resnet20_cifar10")
    from potstill.compression import load_schedule
    from potstill.models import create_model

    model = create_model("resnet20_cifar")
    for row in module.ROWS:
        assert load_schedule(module.schedule(row, 10), model).policies


def test_schedules_index(call, tmp_path):
    call("schedules", "--index", INDEX=tmp_path / "index.md")
    assert (tmp_path / "index.md").read_text() == (ROOT / "schedules" / "README.md").read_text()


def test_scheduler_overhead(call):
    text = call("scheduler_overhead", "--rounds", 1, CASES=[("simplenet_cifar", 2)])
    assert re.search(r"^ratio: \d", text, re.MULTILINE)


def test_thinning(call):
    text = call("thinning", "squeezenet1_1")
    assert re.search(r"squeezenet1_1 .*yes", text), text


def test_thinning_peer(call):
    """One that does not end within its limit is said, and has no ratio."""
    pytest.importorskip("torch_pruning")
    assert re.search(r"squeezenet1_1 +\| +\d.* \d", call("thinning_peer", "squeezenet1_1", "--rounds", 1))

    def late(name, image):
        return lambda: time.sleep(5)

    assert "more than 1 " in call("thinning_peer", "squeezenet1_1", "--rounds", 1, "--limit", 1, peer=late)


def test_thinning_memory(call):
    """With a head of zeros, as DenseNet's and ViT's are: outputs of zeros prove nothing, and thinning says so."""

    class HeadOfZeros(nn.Sequential):
        def __init__(self):
            head = nn.Linear(8, 5)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
            super().__init__(nn.Conv2d(3, 8, 9, 8), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)

    class Models:
        class models:  # noqa: N801  (as torchvision calls it)
            get_model = staticmethod(lambda name: HeadOfZeros())

    assert re.search(r"^zeros .*: [\d.]+x$", call("thinning_memory", "zeros", torchvision=Models), re.MULTILINE)


def test_trajectory_overhead(call):
    assert "% of training" in call("trajectory_overhead", CASES=[("mlp", (1, 28, 28), 2, 10)])


def test_all(call, load, monkeypatch, tmp_path, capsys):
    module = load("all")
    said = {part.title: f"ratio of {part.command}" for part in module.PARTS}
    monkeypatch.setattr(module, "output_of", lambda part: said[part.title])
    monkeypatch.setattr(module, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(module, "HERE", tmp_path / "benchmarks")
    module.main(["--write"])
    assert all(f"## {title}" in (tmp_path / "page.md").read_text() for title in said)
    assert all(text in (tmp_path / "page.md").read_text() for text in said.values())


def test_all_says_what_failed(load):
    module = load("all")
    assert module.output_of(module.Part("none", "no_such.py", "")).startswith("failed: ")
    assert all((module.HERE / part.command.split()[0]).exists() for part in module.PARTS)


@pytest.mark.parametrize("mode", [["--asked", "0.9"], ["--rounding"]])
def test_latency(call, mode, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    few = {"NETWORKS": {"resnet20_cifar": (32, ["layer3.*.conv1.weight"])}, "STEPS": 2}
    assert "resnet20_cifar" in call("latency", *mode, "--batches", 1, "--seconds", 0, **few)


@pytest.mark.slow
def test_latency_accuracy(call, images, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    few = ["--seeds", 1, "--images", 18, "--test-images", 10, "--latency", 0.9, "--macs", 0.6, 0.3]
    text = call("latency_accuracy", "--data", images, *few, DENSE=1, GATES=1, TUNING=1)
    assert re.search(r"\|\s+0 \|\s+0.90 \|", text), text


def test_single_channels(call):
    text = call("single_channels", "--seeds", 4, "--batches", 1, milliseconds=lambda models, *_: [2.0] * len(models))
    assert text.count("2.00") == 3


def test_accuracies_are_read_between_two_latencies(load):
    between = load("latency_accuracy").between
    known = [(1.0, 1.0, 90.0), (0.5, 0.4, 70.0), (0.7, 0.6, 80.0)]
    assert (between(known, 0.6), between(known, 0.85), between(known, 0.4)) == (75.0, 85.0, None)


@pytest.mark.slow
def test_one_shot(call):
    pytest.importorskip("torch_pruning")
    assert "simplenet_mnist" in call("one_shot", "--networks", "simplenet_mnist", "--scores", "l1", "--epochs", 1)


@pytest.mark.slow
def test_l0_recalibration(call):
    assert call("l0_recalibration", "--seeds", 1, "--dense", 1, "--window", 1)


def test_rules_are_broken_one_line_at_a_time(load):
    rules = (ROOT / "thinning" / "tracing" / "rules" / "pool.py").read_text().splitlines()
    line = 1 + rules.index("    _pass(call, keeps_constants=True)")
    *others, last = load("rule_mutants").chosen(["fallback", f"pool:{line}"])
    assert {mutant.file for mutant in others} == {"fallback"}
    assert (last.function, last.what) == ("pool", "left out: _pass(call, keeps_constants=True)")


@pytest.mark.slow
def test_rule_mutants(call):
    assert call("rule_mutants", "pool", "--every", 100, "--most", 1)


def test_every_benchmark_is_run_here():
    here = set(re.findall(r"^def test_(\w+)\(", Path(__file__).read_text(), re.MULTILINE))
    assert {script.stem for script in SCRIPTS} - {"schedule_headers", "schedules", *NO_SMALL_FORM} <= here


@pytest.mark.parametrize("name", sorted(NO_SMALL_FORM))
def test_benchmarks_without_a_small_form_read_their_options(load, name, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    main = load(name).main
    with pytest.raises(SystemExit) as stop:
        main(*[["--help"] for _ in signature(main).parameters])
    assert not stop.value.code


def test_lower_bounds(call):
    pins = call("lower_bounds", "somewhere", "--list").splitlines()
    assert all("==" in pin or "<" in pin for pin in pins) and any(pin.startswith("torch==") for pin in pins)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_its_own_commands_have_options_that_it_takes(script):
    check(script, script.read_text())


def test_commands_of_pages_have_options_that_the_scripts_take():
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", *(ROOT / "schedules").rglob("*.md")]
    for page in pages:
        for name in re.findall(r"benchmarks/(\w+)\.py", page.read_text()):
            assert (ROOT / "benchmarks" / f"{name}.py").exists(), f"{page.name}: benchmarks/{name}.py"
            check(ROOT / "benchmarks" / f"{name}.py", page.read_text())


def check(script, text):
    """Every option after the script's name, to the end of the line or of the code, is one that the script adds."""
    known = set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', script.read_text())) | {"--help"}
    for command in re.findall(rf"benchmarks/{script.stem}\.py([^`#\n]*)", text):
        given = set(re.findall(r"(--[a-z][\w-]*)", command))
        assert script.stem in PASSES_ON or given <= known, f"{script.name}: {command}"
