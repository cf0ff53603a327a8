"""`--write-schema`: right schedules fit it, wrong ones do not, and plugins are in it."""

import json
from pathlib import Path

import pytest

import compress_classifier
from potstill.compression import ScheduleError, load_schedule
from potstill.compression.declare import registry
from potstill.compression.language.errors import Report
from potstill.compression.language.yaml_reader import read

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "schedules").rglob("*.yaml"))


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Classes that a test registers are gone after it."""
    monkeypatch.setattr(registry, "_classes", {section: dict(known) for section, known in registry._classes.items()})


@pytest.fixture(scope="module")
def validator(tmp_path_factory):
    """What an editor has: the file that the command wrote, without any other option."""
    path = tmp_path_factory.mktemp("schema") / "potstill.schema.json"
    assert compress_classifier.main(["--write-schema", str(path)]) == 0
    schema = json.loads(path.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def data(text):
    """The schedule as an editor reads it: YAML 1.2."""
    return read(text, Report("test")).data


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_schedules_fit(path, validator):
    assert [error.message for error in validator.iter_errors(data(path.read_text()))] == []


SCHEDULE = """
pruners:
  agp: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.8, weights: [fc.weight]}
regularizers:
  lasso: {class: GroupLassoRegularizer, reg_regims: {conv.weight: [1e-4, Filters]}}
policies:
  - {pruner: {instance_name: agp, args: {keep_mask: true}}, starting_epoch: 0, ending_epoch: 3, frequency: 1}
  - {regularizer: {instance_name: lasso}, epochs: [1, 2]}
"""
WRONG = {
    "unknown section": ("regularizers:", "regularisers:"),
    "unknown class": ("AutomatedGradualPruner", "GradualPruner"),
    "class of another section": ("AutomatedGradualPruner", "L1Regularizer"),
    "missing class": ("class: AutomatedGradualPruner, ", ""),
    "unknown argument": ("final_sparsity", "final_sparcity"),
    "missing argument": ("initial_sparsity: 0.1, ", ""),
    "argument of another class": ("initial_sparsity: 0.1", "desired_sparsity: 0.1"),
    "text for a number": ("0.8", "'0.8'"),
    "number for a text": ("[fc.weight]", "[3]"),
    "out of range": ("0.8", "1.8"),
    "no weights": ("[fc.weight]", "[]"),
    "unknown group": ("Filters", "Filter"),
    "group without strength": ("[1e-4, Filters]", "[Filters]"),
    "unknown key of a policy": ("frequency: 1", "frequncy: 1"),
    "unknown args": ("keep_mask: true", "keep_masks: true"),
    "wrong type in args": ("keep_mask: true", "keep_mask: yes"),
    "two kinds": ("- {regularizer:", "- {pruner: {instance_name: agp}, regularizer:"),
    "no kind": ("regularizer: {instance_name: lasso}, ", ""),
    "no time": (", epochs: [1, 2]", ""),
    "two ways to say when": ("epochs: [1, 2]", "epochs: [1, 2], starting_minibatch: 0, ending_minibatch: 9"),
    "half of another way": ("epochs: [1, 2]", "epochs: [1, 2], ending_epoch: 3"),
    "half a range": ("starting_epoch: 0, ", ""),
    "epoch that is no whole number": ("ending_epoch: 3", "ending_epoch: 2.5"),
    "no policies": ("policies:", "version: 1\nextensions:"),
    "a list of sections": ("pruners:\n  agp:", "pruners:\n  - agp:"),
}


def test_a_right_schedule_fits(validator):
    assert validator.is_valid(data(SCHEDULE))
    assert load_schedule(data(SCHEDULE), None).warnings == []


@pytest.mark.parametrize(("old", "new"), WRONG.values(), ids=WRONG)
def test_wrong_schedules_do_not_fit(old, new, validator):
    """What the loader refuses too."""
    assert SCHEDULE.count(old) >= 1
    wrong = data(SCHEDULE.replace(old, new, 1))
    with pytest.raises(ScheduleError):
        load_schedule(wrong, None)
    assert not validator.is_valid(wrong)


def test_arguments_are_described_for_editors(validator):
    variants = validator.schema["properties"]["pruners"]["additionalProperties"]["allOf"]
    by_class = {variant["then"]["properties"]["class"]["const"]: variant["then"] for variant in variants}
    ranked = by_class["L2RankedStructureParameterPruner"]
    assert "Euclidean norm" in ranked["description"]
    assert ranked["properties"]["group_type"]["description"] == "how a weight splits into structures."
    assert ranked["properties"]["group_type"]["default"] == "Filters"
    policy = validator.schema["properties"]["policies"]["items"]["properties"]
    assert all(policy[key]["description"] for key in ("starting_epoch", "ending_epoch", "epochs", "minibatches"))


def test_plugins_are_in_it(tmp_path, monkeypatch, capsys, validator):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from potstill.compression import Pruner, register\n"
        "@register('pruners')\n"
        "class MyOwnPruner(Pruner):\n"
        "    def __init__(self, dose: float) -> None: ...\n"
        "    def masks(self, view): return {}\n"
    )
    assert compress_classifier.main(["--write-schema", "--plugin", "mine.py"]) == 0
    assert "# yaml-language-server: $schema=potstill.schema.json" in capsys.readouterr().out
    mine = jsonschema.Draft202012Validator(json.loads(Path("potstill.schema.json").read_text()))
    text = "pruners: {p: {class: MyOwnPruner, dose: 0.5}}\npolicies: [{pruner: {instance_name: p}, epochs: [0]}]"
    assert mine.is_valid(data(text)) and not validator.is_valid(data(text))
    assert not mine.is_valid(data(text.replace("0.5", "much")))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["mine.py", "potstill.schema.json"]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        compress_classifier.main(["--write-schema", str(tmp_path / "none" / "s.json")])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
