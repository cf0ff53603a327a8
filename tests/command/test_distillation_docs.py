"""The page on distillation: its examples run, its errors are real, its table is what the benchmark's pairs say."""

import re
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch
import yaml
from torch import nn

from potstill.command.cli.options import parse, parser
from potstill.compression import load_schedule
from potstill.models import create_model

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "distillation.md").read_text(encoding="utf-8")


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def names():
    """The names that the examples use."""
    student, teacher = create_model("mlp"), create_model("mlp_bn")
    batches = [(torch.randn(4, 1, 28, 28), torch.randint(0, 10, (4,))) for _ in range(2)]
    optimizer = torch.optim.SGD(student.parameters(), 0.1)
    names = {"student": student, "teacher": teacher, "loader": batches, "epochs": 2, "optimizer": optimizer}
    return names | {"criterion": nn.CrossEntropyLoss()}


def test_python(names):
    before = names["student"].layers[1].weight.detach().clone()
    loop, attach = blocks("python")
    exec(loop, names)
    assert not torch.equal(names["student"].layers[1].weight, before)
    exec(attach, names)
    assert names["attachment"].steps == 2


def test_commands_and_options():
    commands = re.findall(r"^    python compress_classifier\.py ((?:.*\\\n)*.*)", PAGE, re.MULTILINE)
    teacher, student = (parse(command.replace("\\\n", " ").split()) for command in commands)
    assert teacher.distillation.kd_teacher is None
    assert (student.distillation.kd_teacher, student.distillation.kd_temp) == (teacher.data.arch, 4.0)
    ours = {name for action in parser()._actions for name in action.option_strings if name.startswith("--kd-")}
    assert ours <= set(re.findall(r"`(--kd-[a-z-]+)", PAGE))


def test_schedule():
    (text,) = blocks("yaml")
    path = ROOT / "schedules" / "distillation.yaml"
    shown, shipped = load_schedule(yaml.safe_load(text), None), load_schedule(path, None)
    key = "extensions", "lessons"
    assert shown.instances[key].args == shipped.instances[key].args
    assert shown.policies[0].window == shipped.policies[0].window


def test_links():
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link


def test_means_and_spreads_are_those_of_the_pairs():
    rows = re.findall(r"^\| (\d+) +\| ([\d.]+) +\| ([\d.]+) +\| ([+-][\d.]+) +\|$", PAGE, re.MULTILINE)
    pairs = [(float(a), float(b)) for _, a, b, _ in rows]
    assert [int(seed) for seed, *_ in rows] == list(range(10)), "ten pairs, none left out"
    columns = [*zip(*pairs, strict=True), [b - a for a, b in pairs]]
    for label, of in (("mean", mean), ("standard deviation", stdev)):
        told = re.search(rf"^\| {label} +\| ([\d.]+) +\| ([\d.]+) +\| \+?([\d.]+) +\|$", PAGE, re.MULTILINE).groups()
        assert [float(number) for number in told] == pytest.approx([of(column) for column in columns], abs=0.011)
