"""Distiller's 64 public schedules for classification load, unchanged, with the networks that they are for."""

import re
from functools import cache

import pytest
import torch

from potstill.compression.language.signatures import classes
from potstill.compression.schedule import ScheduleError, build, load_schedule
from potstill.models import create_model

from .distiller_schedules import ALL_ROWS, SECTIONS, Row, write


@cache
def network(arch: str) -> torch.nn.Module:
    with torch.device("meta"):
        return create_model(arch)


def weights(model: torch.nn.Module) -> dict[str, int]:
    return {name: p.dim() for name, p in model.named_parameters() if name.endswith(".weight")}


def ids(row: Row) -> str:
    return row.file


QUANTIZED = [row for row in ALL_ROWS if row.instances[0][0] == "q"]
OTHERS = [row for row in ALL_ROWS if row not in QUANTIZED]


def test_there_are_as_many_as_distiller_has():
    assert len(ALL_ROWS) == len({row.file for row in ALL_ROWS}) == 64
    assert len(QUANTIZED) == 5


@pytest.mark.parametrize("style", [0, 1, 2, 5])
@pytest.mark.parametrize("row", OTHERS, ids=ids)
def test_it_loads(row, style, tmp_path):
    model = network(row.arch)
    file = tmp_path / "schedule.yaml"
    file.write_text(write(row, weights(model), style))
    schedule = load_schedule(file, model)
    named = [(plan.section, plan.cls) for plan in schedule.instances.values()]
    assert named == [
        (section, classes(section)[cls])
        for letter, section in SECTIONS.items()
        for of, cls, _ in row.instances
        if of == letter
    ]
    described = [f"{plan.kind} {plan.instance} {times(plan.window)}" for plan in schedule.policies]
    assert described == list(expected(row.policies))
    unexpected = [text for text in schedule.warnings if "is never used by a policy" not in text]
    assert len(unexpected) == 2 * row.twice
    assert all(re.search("stands twice, in lines .* with the same value", text) for text in unexpected)


@pytest.mark.parametrize("row", QUANTIZED, ids=ids)
def test_quantization_is_refused_in_one_line(row, tmp_path):
    file = tmp_path / "schedule.yaml"
    file.write_text(write(row, weights(network(row.arch)), 1))
    with pytest.raises(ScheduleError) as caught:
        load_schedule(file, network(row.arch))
    (line,) = str(caught.value).splitlines()
    assert "quantizers.q0: " in line
    assert f"{row.instances[0][1]}: quantization is not supported" in line


@pytest.mark.parametrize("row", [row for row in OTHERS if "cifar" in row.arch], ids=ids)
def test_it_builds_a_scheduler(row, tmp_path):
    model = network(row.arch)
    file = tmp_path / "schedule.yaml"
    file.write_text(write(row, weights(model), 1))
    schedule = load_schedule(file, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = build(schedule, model, optimizer, example_inputs=torch.zeros(1, 3, 32, 32))
    kinds = [plan.kind for plan in schedule.policies]
    assert len(scheduler.policies) == len(kinds)
    last = [type(policy).__name__ == "LRPolicy" for policy in scheduler.policies]
    assert last == sorted(last)
    assert sum(last) == kinds.count("lr_scheduler")


def times(window):
    if isinstance(window.times, range):
        return f"{window.start}-{window.end}/{window.frequency}"
    return str(list(window.times))


def expected(policies):
    kinds = {"p": "pruner", "r": "regularizer", "l": "lr_scheduler", "e": "extension"}
    for entry in policies.split("; "):
        names, when = entry.split(" ")[:2]
        first, _, last = names[1:].partition("-")
        for i in range(int(first), int(last or first) + 1):
            yield f"{kinds[names[0]]} {names[0]}{i} {when}"
