"""The JSON schema says of schedules what the loader says of their form."""

import json

import pytest
import yaml

from potstill.compression.declare.registry import SECTIONS
from potstill.compression.schedule import json_schema

from .test_schedule_check import SCHEDULE

jsonschema = pytest.importorskip("jsonschema")


def errors(text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(json_schema())
    data = yaml.safe_load(text.replace("1e-4", "1.0e-4").replace("2e-4", "2.0e-4"))  # YAML 1.1 wants the dot
    return [error.message for error in validator.iter_errors(data)]


def test_it_is_a_schema_and_plain_json():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


def test_a_right_schedule_fits():
    assert errors(SCHEDULE) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pruners:", "pruner:"),
        ("AutomatedGradualPruner", "AutomatedGradualPrunr"),
        ("final_sparsity", "final_sparsty"),
        ("0.7", "1.7"),
        ("0.7", "'0.7'"),
        ("[conv.weight, module.fc.weight]", "[]"),
        ("2D", "2d"),
        ("[1e-4, 2D]", "[1e-4]"),
        ("45", "0"),
        ("gamma: 0.10", "gama: 0.10"),
        ("instance_name: agp", "instance: agp"),
        ("mini_batch_pruning_frequency: 3", "keep_mask: 3"),
        ("minibatches: [1000]", ""),
        ("[10, 12]", "[10, 12]\n    minibatches: [3]"),
        ("policies:", "policy:"),
    ],
)
def test_mistakes_of_form_do_not_fit(old, new):
    assert old in SCHEDULE
    assert errors(SCHEDULE.replace(old, new, 1))


def test_every_section_is_described():
    properties = json_schema()["properties"]
    assert set(properties) == {*SECTIONS, "policies", "version"} - {"quantizers"}
    assert "StepLR" in json.dumps(properties["lr_schedulers"])
    assert "LambdaLR" not in json.dumps(properties["lr_schedulers"])
