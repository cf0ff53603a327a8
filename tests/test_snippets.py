"""Every snippet of every page runs as it stands: Python, schedules, sessions, commands of `compress-classifier`."""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from potstill.command.cli.options import parse
from potstill.compression import CompressionScheduler, load_schedule
from potstill.compression.declare import registry as declared
from potstill.compression.language.signatures import KINDS
from potstill.models import create_model

ROOT = Path(__file__).parents[1]
PAGES = {path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]}
ELSEWHERE = {
    "docs/averaged_models.md": "tests/integrations/test_docs.py",
    "docs/notebooks.md": "tests/test_plots.py",
    "docs/other_loops.md": "tests/integrations/test_loops.py",
    "docs/quantization.md": "tests/integrations/test_docs.py",
    "docs/transformer_heads.md": "tests/integrations/test_docs.py",
    "docs/datasets.md": "tests/models/test_docs.py",
    "docs/distillation.md": "tests/command/test_distillation_docs.py",
    "docs/extending.md": "tests/test_docs.py",
    "docs/hugging_face.md": "tests/integrations/test_docs.py",
    "docs/lightning.md": "tests/integrations/test_docs.py",
    "docs/migration.md": "tests/command/test_migration.py",
    "docs/one_shot.md": "tests/integrations/test_docs.py",
    "docs/sensitivity.md": "tests/command/test_sensitivity.py",
    "docs/training_loop.md": "tests/test_docs.py",
}
"""Pages whose Python is run, and looked at, by the tests of what they are about."""
TRAINS_FOR_MINUTES = {"docs/sweeps.md"}
"""Pages of which this test only makes the imports: the calls are those of tests/sweep, on smaller networks."""
SCHEDULE = """
pruners:
  f: {class: L1RankedStructureParameterPruner, desired_sparsity: 0.5, weights: [conv1.weight]}
policies:
  - {pruner: {instance_name: f}, epochs: [0]}
"""
STUBS: dict[str, dict[str, Any]] = {
    "pruners": {"class": "SparsityLevelParameterPruner", "levels": {"fc.weight": 0.5}},
    "regularizers": {"class": "GroupLassoRegularizer", "reg_regims": {"conv1.weight": [0.1, "Channels"]}}
    | {"threshold_criteria": "Max"},
    "lr_schedulers": {"class": "ExponentialLR", "gamma": 0.9},
    "extensions": {"class": "Thinner"},
}


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGES[page].read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def pages_with(kind: str, without: Any = ()) -> list[str]:
    return [page for page in PAGES if blocks(page, kind) and page not in without]


class Net(nn.Module):
    """The network of a reader."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(self.conv1(x)).mean((2, 3))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a reader has: a network, an optimizer, images, a schedule in the folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schedule.yaml").write_text(SCHEDULE)
    network = Net()
    images = torch.randn(4, 3, 8, 8)
    loader = [(images, torch.tensor([0, 1, 2, 3]))] * 2

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, loader: Any) -> None:
        for inputs, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()

    return {
        "model": network,
        "network": network,
        "Net": Net,
        "optimizer": torch.optim.SGD(network.parameters(), 0.1),
        "images": images,
        "example_inputs": images[:2],
        "loader": loader,
        "epochs": 1,
        "rank": 0,
        "train": train,
        "evaluate": lambda model: float(model(images).detach().mean()),
    }


def of_the_lab(names: dict[str, Any]) -> None:
    """A recorded trajectory."""
    import compress_classifier

    run = ["-a", "mlp", "--limit-train", "64", "--limit-test", "10", "--epochs", "1", "--trajectory", "*:1"]
    assert compress_classifier.main(run) == 0


def of_models(names: dict[str, Any]) -> None:
    """A thinned network that a run left."""
    import compress_classifier

    assert compress_classifier.main(["-a", "mlp", "--limit-train", "64", "--limit-test", "10", "--epochs", "0"]) == 0


def of_many_processes(names: dict[str, Any]) -> None:
    """One process that is a group."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


def sharded(names: dict[str, Any]) -> None:
    """A sharded network with a mask, and a checkpoint of its scheduler."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.fsdp import fully_shard

    names["model"] = fully_shard(Net())
    names["scheduler"] = CompressionScheduler(names["model"])
    weight = names["model"].conv1.weight
    names["scheduler"].masks.set("reader", "conv1.weight", torch.ones_like(weight))
    dcp.save({"scheduler": names["scheduler"].state_dict()}, checkpoint_id="stored")
    names["path"] = "stored"


BEFORE: dict[str, Callable[[dict[str, Any]], None]] = {
    "docs/lab.md": of_the_lab,
    "docs/models.md": of_models,
    "docs/many_processes.md": of_many_processes,
}


def before_block(page: str, code: str, names: dict[str, Any]) -> bool:
    """Make what a block speaks of; return whether it is run by another test."""
    if "load_distributed" in code:
        sharded(names)
    if page == "docs/thinning.md" and "resnet50" in code:  # a small one, thinned as the block before says
        import torchvision

        names["torchvision"] = torchvision
        from potstill.thinning import thin

        names["model"] = torchvision.models.resnet50().eval()
        names["recipe"] = thin(names["model"], torch.randn(2, 3, 32, 32))
    return "from .registry" in code or "custom_op" in code  # tests/models/test_docs.py, tests/test_docs.py


def apart(page: str, code: str) -> bool:
    """Run lines that show a fault of torch's in a process of their own, which may end there; return whether it did."""
    shows = page == "docs/reliability.md" and "stride=2" in code
    if shows:
        ended = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False)
        assert ended.returncode <= 0, ended.stderr  # a signal, if anything
    return shows


@pytest.mark.parametrize("page", pages_with("python", ELSEWHERE))
def test_python_runs(page: str, reader: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In one namespace, block after block, with nothing but what a reader has."""
    classes = {section: dict(entries) for section, entries in declared._classes.items()}
    monkeypatch.setattr(declared, "_classes", classes)  # a page registers a pruner
    BEFORE.get(page, lambda names: None)(reader)
    try:
        for code in blocks(page, "python"):
            if page in TRAINS_FOR_MINUTES:
                code = "\n".join(line for line in code.splitlines() if line.startswith("from "))
            if not before_block(page, code, reader) and not apart(page, code):
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(code, reader)
    finally:
        if page == "docs/many_processes.md":
            torch.distributed.destroy_process_group()


def test_the_others_are_run_by_the_tests_of_what_they_are_about() -> None:
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8"), page
        assert page in pages_with("python"), page


@pytest.mark.parametrize("page", pages_with("yaml", {"docs/extending.md"}))  # of classes that only its test makes
def test_schedules_are_sound(page: str) -> None:
    """Those that are a part of one are completed: by instances of the names that they use, or by a policy."""
    for text in blocks(page, "yaml"):
        schedule = yaml.safe_load(re.sub(r"!\w+", "", text))
        if "modifiers" in schedule:  # SparseML's: tests/command/test_migration.py
            continue
        policies = schedule.setdefault("policies", [])
        for policy in policies:
            kind = next(kind for kind in policy if kind in KINDS)
            section = KINDS[kind]
            schedule.setdefault(section, {}).setdefault(policy[kind]["instance_name"], STUBS[section])
        if not policies:
            kinds = {section: kind for kind, section in KINDS.items()}
            policies += [
                {kinds[section]: {"instance_name": name}, "starting_epoch": 0, "ending_epoch": 9}
                for section in KINDS.values()
                for name in schedule.get(section, {})
            ]
        own = {"inception_blocks": "googlenet_cifar", "fc1.weight": "simplenet_cifar"}
        arch = next((name for layer, name in own.items() if layer in text), "resnet20_cifar")
        assert load_schedule(schedule, create_model(arch)).policies


def sessions(page: str) -> Iterator[list[doctest.Example]]:
    for text in blocks(page, r"\w*"):
        if text.startswith(">>> "):
            yield doctest.DocTestParser().get_examples(text)


@pytest.mark.parametrize("page", [page for page in PAGES if any(sessions(page))])
def test_sessions_print_what_they_show(page: str) -> None:
    names: dict[str, Any] = {}
    for code in blocks(page, "python")[:1]:
        if "from ." not in code:
            exec(code, names)
    for example in (example for session in sessions(page) for example in session):
        assert answer(example.source, names) == example.want.strip()


def answer(source: str, names: dict[str, Any]) -> str:
    """Return what a line prints at the prompt; of an error the last line."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(ast.Interactive(ast.parse(source).body), "page", "single"), names)
    except Exception as error:
        return f"{type(error).__module__}.{type(error).__qualname__}: {error}"
    return printed.getvalue().strip()


PROGRAM = r"(?:compress-classifier|python compress_classifier\.py) (.*)"


def commands(page: str) -> list[str]:
    text = PAGES[page].read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(rf"^ {{4}}(?:.*\s)?{PROGRAM}$", text, re.MULTILINE)
    found += re.findall(PROGRAM, "\n".join(blocks(page, "sh")))
    return [re.split(r"\s(?:&&|#|>|\|)\s", command)[0] for command in found]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands_name_options_that_exist(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        arguments = shlex.split(command)
        missing = any(name in command and find_spec(name) is None for name in ("timm", "transformers"))
        if "--plugin" not in arguments and not missing:
            assert parse(arguments), command
