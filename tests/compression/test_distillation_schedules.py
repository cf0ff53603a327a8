"""Distillation as a schedule says it: built by whoever builds networks, every mistake with its line."""

import json

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, KnowledgeDistillationPolicy, ScheduleError, build, file_config
from potstill.compression.schedule import json_schema, load_schedule

SCHEDULE = """extensions:
  lessons:
    class: KnowledgeDistillationPolicy
    arch: large
    checkpoint: large.pt
    temperature: 4
    distill_weight: 0.7
    student_weight: 0.3
policies:
  - {extension: {instance_name: lessons}, starting_epoch: 2, ending_epoch: 5}
"""

ONE = "a teacher needs trained weights: give exactly one of checkpoint and pretrained: true"


@pytest.fixture
def model():
    return nn.Linear(6, 4)


def write(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return path


def mistakes(path, model, **more):
    with pytest.raises(ScheduleError) as caught:
        file_config(model, None, path, **more)
    return str(caught.value).replace(str(path), "s.yaml").splitlines()


def test_the_teacher_is_asked_for_by_name(tmp_path, model):
    asked, teacher = [], nn.Linear(6, 4)

    def build_teacher(*wanted):
        asked.append(wanted)
        return teacher

    scheduler = file_config(model, None, write(tmp_path, SCHEDULE), build_teacher=build_teacher)
    (policy,) = scheduler.policies
    assert asked == [("large", "large.pt", False)]
    assert isinstance(policy, KnowledgeDistillationPolicy)
    assert (policy.student, policy.teacher, policy.name) == (model, teacher, "lessons")
    assert (policy.temperature, policy.loss_weights) == (4.0, (0.7, 0.3, 0.0))
    assert (policy.window.start, policy.window.end) == (2, 5)


def test_it_goes_before_the_policies_that_add_terms(tmp_path, model):
    more = "regularizers:\n  l1: {class: L1Regularizer, reg_regims: {weight: 1e-3}}\n"
    policies = "policies:\n  - {regularizer: {instance_name: l1}, epochs: [0]}\n"
    text = more + SCHEDULE.replace("policies:\n", policies)
    scheduler = CompressionScheduler(model)
    build(load_schedule(write(tmp_path, text), model), model, scheduler=scheduler, build_teacher=lambda *a: None)
    assert [policy.name for policy in scheduler.policies] == ["lessons", "l1"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("temperature: 4", "temperature: 0", ":6: extensions.lessons.temperature: must be a number above 0, not 0"),
        ("0.7", "-1", ":7: extensions.lessons.distill_weight: must be a number of at least 0, not -1"),
        ("0.3", "'x'", ":8: extensions.lessons.student_weight: must be a number of at least 0, not the text 'x'"),
        ("arch: large", "arch: 3", ":4: extensions.lessons.arch: must be a text, not 3 (put it in quotes)"),
        ("checkpoint: large.pt", "pretrained: false", f":2: extensions.lessons: {ONE}"),
        ("temperature: 4", "pretrained: true", f":2: extensions.lessons: {ONE}"),
        (
            "0.7\n    student_weight: 0.3",
            "0\n    student_weight: 0",
            ":7: extensions.lessons.distill_weight: is 0 and student_weight too: nothing would be learned",
        ),
        (
            "temperature",
            "temprature",
            ":6: extensions.lessons.temprature: there is no such argument (did you mean temperature?)",
        ),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path, model, old, new, said):
    assert SCHEDULE.count(old) == 1
    path = write(tmp_path, SCHEDULE.replace(old, new))
    assert mistakes(path, model, build_teacher=lambda *wanted: nn.Linear(6, 4)) == [f"s.yaml{said}"]


def test_what_the_builder_says_is_told_with_the_line(tmp_path, model):
    def build_teacher(arch, checkpoint, pretrained):
        raise ValueError(f"no network {arch}")

    said = mistakes(write(tmp_path, SCHEDULE), model, build_teacher=build_teacher)
    assert said == ["s.yaml:2: extensions.lessons: no network large"]


def test_without_a_builder_it_says_where_to_give_one(tmp_path, model):
    said = mistakes(write(tmp_path, SCHEDULE), model)
    assert said == ["s.yaml:2: extensions.lessons: needs to know how networks are built: build(..., build_teacher=...)"]


def test_without_a_teacher_it_can_be_planned_but_not_trained_with(tmp_path, model):
    scheduler = file_config(model, None, write(tmp_path, SCHEDULE), build_teacher=lambda *wanted: None)
    scheduler.on_minibatch_begin(2, 0, 1)
    loss = model(torch.zeros(2, 6)).sum()
    with pytest.raises(ValueError, match="lessons: there is no teacher to learn from"):
        scheduler.before_backward_pass(2, 0, 1, loss)


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"arch": "a", "checkpoint": "b"}, True),
        ({"arch": "a", "pretrained": True, "temperature": 2.5, "student_weight": 0}, True),
        ({"checkpoint": "b"}, False),
        ({"arch": "a", "temperature": 0}, False),
        ({"arch": "a", "distill_weight": -1}, False),
        ({"arch": "a", "model": "b"}, False),
        ({"arch": "a", "build_teacher": "b"}, False),
    ],
)
def test_json_schema(arguments, right):
    jsonschema = pytest.importorskip("jsonschema")
    schedule = {
        "extensions": {"lessons": {"class": "KnowledgeDistillationPolicy", **arguments}},
        "policies": [{"extension": {"instance_name": "lessons"}, "epochs": [0]}],
    }
    validator = jsonschema.Draft202012Validator(json.loads(json.dumps(json_schema())))
    assert validator.is_valid(schedule) is right
