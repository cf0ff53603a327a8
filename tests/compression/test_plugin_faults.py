"""Faults of classes that users register: a line that names the class, and where in it."""

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, Pruner, PruningPolicy, Window
from potstill.compression.declare import registry
from potstill.compression.declare.registry import register
from potstill.compression.schedule import PluginError, ScheduleError, build, load_plugin, load_schedule


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_classes", {section: dict(known) for section, known in registry._classes.items()})


PLUGIN = """
from potstill.compression import Pruner, register

@register("pruners")
class BadProblems(Pruner):
    @classmethod
    def problems(cls, args, shapes):
        raise KeyError("oops")
    def masks(self, view): return {}

@register("pruners")
class BadMisuses(Pruner):
    @classmethod
    def misuses(cls, use):
        return [1 / 0]
    def masks(self, view): return {}

@register("pruners")
class BadInit(Pruner):
    def __init__(self):
        raise RuntimeError("my init")
    def masks(self, view): return {}

@register("extensions")
class NoPolicy:
    pass
"""


def told(tmp_path, name, section="pruners", kind="pruner"):
    (tmp_path / "faulty.py").write_text(PLUGIN)
    load_plugin(tmp_path / "faulty.py")
    policies = [{kind: {"instance_name": "p"}, "epochs": [1]}]
    net = nn.Linear(2, 2)
    with pytest.raises(ScheduleError) as caught:
        build(load_schedule({section: {"p": {"class": name}}, "policies": policies}, net), net)
    return str(caught.value)


def test_checks_and_constructors_that_fail(tmp_path):
    assert told(tmp_path, "BadProblems") == "pruners.p: BadProblems.problems fails: KeyError: 'oops' (faulty.py:8)"
    assert told(tmp_path, "BadInit") == "pruners.p: BadInit fails: RuntimeError: my init (faulty.py:21)"
    expected = "policies[0].pruner: BadMisuses.misuses fails: ZeroDivisionError: division by zero (faulty.py:15)"
    assert told(tmp_path, "BadMisuses") == expected


def test_classes_of_the_wrong_kind(tmp_path):
    message = "extensions.p.class: NoPolicy must be derived from ScheduledTrainingPolicy"
    assert told(tmp_path, "NoPolicy", "extensions", "extension") == message


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (None, "p: Faulty.masks must give masks by parameter, not NoneType"),
        ({"nope": torch.ones(3)}, "p: Faulty.masks gives a mask of 'nope', which is no parameter"),
        ({"weight": torch.ones(3)}, r"mask of weight has shape \(3,\), the parameter \(2, 2\)"),
    ],
)
def test_masks_that_are_none(masks, message):
    class Faulty(Pruner):
        def masks(self, view):
            return masks

    scheduler = CompressionScheduler(nn.Linear(2, 2))
    scheduler.add_policy(PruningPolicy(Faulty()), Window.at([0]), name="p")
    with pytest.raises(ValueError, match=message):
        scheduler.on_epoch_begin(0)


def test_names_that_are_taken(tmp_path):
    """Also by a class of the same name in another module: it would replace a built-in one without a word."""
    file = tmp_path / "same.py"
    file.write_text(PLUGIN.replace("class BadInit", "class AutomatedGradualPruner"))
    with pytest.raises(PluginError, match="AutomatedGradualPruner is already potstill.*element_levels"):
        load_plugin(file)

    class Own(Pruner): ...

    assert register("pruners")(register("pruners")(Own)) is Own
