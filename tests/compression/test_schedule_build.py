"""From a schedule to a scheduler: building, Distiller's entry points, finding schedules, plugins."""

import copy

import pytest
import torch
from torch import nn

from potstill.compression.declare import registry
from potstill.compression.declare.registry import registered
from potstill.compression.language import find
from potstill.compression.schedule import (
    PluginError,
    ScheduleError,
    ScheduleWarning,
    build,
    dict_config,
    file_config,
    find_schedule,
    load_plugin,
    load_schedule,
)

SCHEDULE = {
    "version": 2,
    "lr_schedulers": {"decay": {"class": "ExponentialLR", "gamma": 0.9}},
    "pruners": {"level": {"class": "SparsityLevelParameterPruner", "levels": {"0.weight": 0.5}}},
    "regularizers": {"l1": {"class": "L1Regularizer", "reg_regims": {"*.weight": 1}}},
    "extensions": {"thinner": {"class": "Thinner"}},
    "policies": [
        {"lr_scheduler": {"instance_name": "decay"}, "starting_epoch": 0, "ending_epoch": 3},
        {"extension": {"instance_name": "thinner"}, "epochs": [5]},
        {"pruner": {"instance_name": "level"}, "epochs": (0,)},
        {"pruner": {"instance_name": "level", "args": {"levels": {"module.0.weight": 0.75}}}, "epochs": [1]},
        {"regularizer": {"instance_name": "l1"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1},
        {"extension": {"instance_name": "thinner"}, "epochs": [7]},
    ],
}


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Classes that a test registers are gone after it."""
    monkeypatch.setattr(registry, "_classes", {section: dict(known) for section, known in registry._classes.items()})


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1)


def test_policies_come_in_the_order_of_the_file_and_those_of_learning_rates_last():
    net = model()
    scheduler = dict_config(net, sgd(net), SCHEDULE)
    names = ["thinner", "level", "level.2", "l1", "thinner.2", "decay"]
    assert [policy.name for policy in scheduler.policies] == names
    assert scheduler.policies[1].pruner is scheduler.policies[2].pruner
    assert [list(policy.window.times) for policy in scheduler.policies] == [[5], [0], [1], [0, 1, 2], [7], [0, 1, 2]]


def test_the_policies_do_what_the_schedule_says():
    net = model()
    optimizer = sgd(net)
    scheduler = dict_config(net, optimizer, SCHEDULE)
    zeros, rates = [], []
    for epoch in range(3):
        scheduler.on_epoch_begin(epoch, optimizer)
        scheduler.on_minibatch_begin(epoch, 0, 1, optimizer)
        loss = scheduler.before_backward_pass(epoch, 0, 1, net(torch.ones(1, 4)).sum(), optimizer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.on_minibatch_end(epoch, 0, 1, optimizer)
        scheduler.on_epoch_end(epoch, optimizer)
        zeros.append(int((net[0].weight == 0).sum()))
        rates.append(optimizer.param_groups[0]["lr"])
    assert zeros == [10, 15, 15]
    assert rates == pytest.approx([0.09, 0.081, 0.0729])


def test_the_mapping_stays_as_it_is():
    before = copy.deepcopy(SCHEDULE)
    net = model()
    dict_config(net, sgd(net), SCHEDULE)
    dict_config(net, sgd(net), SCHEDULE)
    assert before == SCHEDULE


def test_policies_join_a_scheduler_that_is_there():
    net = model()
    scheduler = dict_config(net, sgd(net), SCHEDULE)
    assert dict_config(net, sgd(net), SCHEDULE, scheduler=scheduler, resumed_epoch=3) is scheduler
    assert len(scheduler.policies) == 12
    assert len({policy.name for policy in scheduler.policies}) == 12


def test_mistakes_in_a_mapping_have_paths():
    broken = copy.deepcopy(SCHEDULE)
    broken["pruners"]["level"]["levels"] = {"0.weigth": 0.5}
    broken["policies"][0][3] = object()
    with pytest.raises(ScheduleError) as caught:
        dict_config(model(), None, broken)
    first, second = str(caught.value).splitlines()
    assert first.startswith("pruners.level.levels.0.weigth: the name '0.weigth' fits no parameter (did you mean 0")
    assert second.startswith("policies[0].3: there is no such key")


def test_a_mapping_inside_itself_is_refused():
    endless: dict = {"policies": []}
    endless["policies"].append(endless)
    with pytest.raises(ScheduleError, match="is nested more than 50 levels deep"):
        load_schedule(endless, None)


def test_values_that_are_not_plain_are_told():
    broken = copy.deepcopy(SCHEDULE)
    broken["pruners"]["level"]["levels"] = {"0.weight": torch.tensor(0.5)}
    with pytest.raises(ScheduleError, match=r"levels\.0\.weight: must be a number .*, not a Tensor"):
        load_schedule(broken, model())


def test_learning_rates_need_an_optimizer():
    with pytest.raises(ScheduleError, match=r"^lr_schedulers\.decay: needs an optimizer, and none was given$"):
        dict_config(model(), None, SCHEDULE)


def test_a_curve_that_ends_before_its_window(tmp_path):
    """torch would raise in the middle of training."""
    file = tmp_path / "a.yaml"
    file.write_text(
        "lr_schedulers:\n  big: {class: OneCycleLR, max_lr: 9.0, total_steps: 9}\n"
        "policies:\n  - {lr_scheduler: {instance_name: big}, starting_epoch: 0, ending_epoch: 10}\n"
    )
    net = model()
    with pytest.raises(ScheduleError, match=r"a\.yaml:\d: .* total_steps 9, but its window ends at epoch 10"):
        file_config(net, sgd(net), file)


def test_unused_instances_are_not_made_and_warned_about(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(
        "lr_schedulers:\n  big: {class: OneCycleLR, max_lr: 9.0, total_steps: 9}\n"
        "pruners:\n  p: {class: SparsityLevelParameterPruner, levels: {0.weight: 0.5}}\n"
        "policies:\n  - pruner: {instance_name: p}\n    epochs: [0]\n"
    )
    net = model()
    optimizer = sgd(net)
    with pytest.warns(ScheduleWarning, match=r"a\.yaml:2: lr_schedulers\.big: is never used by a policy"):
        scheduler = file_config(net, optimizer, file)
    assert len(scheduler.policies) == 1
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_constructor_that_refuses_is_told_with_its_place(tmp_path):
    plugin = tmp_path / "picky.py"
    plugin.write_text(
        "from potstill.compression import Pruner, register\n"
        "@register('pruners')\n"
        "class PickyPruner(Pruner):\n"
        "    def __init__(self, model, name: str, level: float = 0.5) -> None:\n"
        "        raise ValueError(f'{name} does not like {type(model).__name__}')\n"
        "    def masks(self, view): return {}\n"
    )
    load_plugin(plugin)
    file = tmp_path / "s.yaml"
    file.write_text("pruners: {p: {class: PickyPruner}}\npolicies:\n  - {pruner: {instance_name: p}, epochs: [0]}\n")
    with pytest.raises(ScheduleError, match=r"s\.yaml:1: pruners\.p: p does not like Sequential"):
        file_config(model(), None, file)
    file.write_text(file.read_text().replace("PickyPruner", "PickyPruner, model: 3"))
    with pytest.raises(ScheduleError, match=r"pruners\.p\.model: there is no such argument"):
        file_config(model(), None, file)


PLUGIN = """
from collections.abc import Mapping
from typing import Literal
from potstill.compression import Pruner, register
from potstill.compression.declare.arguments import Count, Names

@register("pruners")
class {name}(Pruner):
    def __init__(self, weights: Names, sizes: tuple[int, Count], how: Literal["a", 2] | None = None,
                 table: Mapping[str, list[bool]] | None = None, rate: float | list[float] = 1,
                 call: Pruner = None) -> None:
        self.given = dict(weights=weights, sizes=sizes, how=how, table=table, rate=rate)
    @classmethod
    def problems(cls, args, shapes):
        if len(shapes[args["weights"][0]]) == 1 and args["how"] is None:
            yield "weights." + args["weights"][0], "is a vector"
    def masks(self, view): return {{}}
"""


def test_a_plugin_joins_the_language(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.format(name="MinePruner"))
    load_plugin(file)
    load_plugin(file)
    assert "MinePruner" in registered("pruners")
    given = {"class": "MinePruner", "weights": "*.weight", "sizes": [1, 2], "how": 2}
    given |= {"table": {"a": [True]}, "rate": [1, 2]}
    policies = [{"pruner": {"instance_name": "p"}, "epochs": [0]}]
    schedule = load_schedule({"pruners": {"p": given}, "policies": policies}, model())
    scheduler = build(schedule, model())
    assert scheduler.policies[0].pruner.given == {
        "weights": ["*.weight"], "sizes": (1, 2), "how": 2, "table": {"a": [True]}, "rate": [1.0, 2.0],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": [1]}, "sizes: must be a list of 2: a whole number; a whole number of at least 1, not a list of 1"),
        ({"sizes": [1, 0]}, "sizes[1]: must be a whole number of at least 1, not 0"),
        ({"how": 3}, "how: must be one of a, 2, not 3"),
        ({"table": {"a": [1]}}, "table.a[0]: must be true or false, not 1"),
        ({"rate": "x"}, "rate: must be a number or a list (each a number), not the text 'x'"),
        ({"rate": [1, "x"]}, "rate[1]: must be a number, not the text 'x'"),
        ({"call": 3}, "call: takes a Python object (Pruner), which a schedule cannot give"),
        ({"weights": ["1.weight", "0.bias"], "how": "b"}, "how: must be one of a, 2, not the text 'b'"),
        ({"weights": "module.0.b*"}, "weights: is a vector"),
    ],
)
def test_annotations_of_a_plugin_are_checked(change, message, tmp_path):
    file = tmp_path / "other.py"
    file.write_text(PLUGIN.format(name="OtherPruner"))
    load_plugin(file)
    given = {"class": "OtherPruner", "weights": ["0.weight"], "sizes": [1, 2]} | change
    policies = [{"pruner": {"instance_name": "p"}, "epochs": [0]}]
    with pytest.raises(ScheduleError) as caught:
        load_schedule({"pruners": {"p": given}, "policies": policies}, model())
    assert str(caught.value) == f"pruners.p.{message}"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("no.py", None, "no such file"),
        ("a.txt", "", r"is not a Python file \(\.py\)"),
        ("b.py", "x = 1", r"registers nothing: put @register\(section\) above a class"),
        ("c.py", "\nimport nothing_of_this_name", r"c\.py:2: ModuleNotFoundError: No module named"),
        ("d.py", "\n\nx = (", r"d\.py:3: SyntaxError: "),
        ("e.py", "from potstill.compression import register\nregister('pruner')", r"e\.py:2: ValueError: no section"),
    ],
)
def test_a_plugin_that_fails_is_told(name, text, message, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(PluginError, match=message):
        load_plugin(tmp_path / name)


def test_schedules_are_found_by_path_and_by_name(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    shipped = {name: tmp_path / "shipped" / f"{name}.yaml" for name in ("googlenet_l0", "agp/x", "ssl/x")}
    monkeypatch.setattr(find, "shipped_schedules", lambda: shipped)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.yaml").write_text("")
    assert find_schedule("here").name == find_schedule(tmp_path / "here.yaml").name == "here.yaml"
    assert find_schedule("googlenet_l0") == find_schedule("googlenet_l0.yaml") == shipped["googlenet_l0"]
    assert find_schedule("agp/x") == shipped["agp/x"]
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    path = shipped["googlenet_l0"]
    assert ("WARNING", f"googlenet_l0.yaml: no such file here; taken is the shipped schedule {path}") in told
    assert ("INFO", f"schedule googlenet_l0: the shipped {path}") in told and len(told) == 3
    with pytest.raises(ScheduleError, match="x: fits several shipped schedules: agp/x, ssl/x"):
        find_schedule("x")
    with pytest.raises(ScheduleError, match=r"googlenet_10: .* \(did you mean the shipped schedule googlenet_l0\?\)"):
        find_schedule("googlenet_10")
    with pytest.raises(ScheduleError, match=r"hire.yaml: no such file here, .* \(did you mean the file here.yaml\?\)"):
        find_schedule("hire.yaml")
    with pytest.raises(ScheduleError, match=f"{tmp_path}: is a folder"):
        find_schedule(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ScheduleError, match=r"folder.yaml: is a folder(?!.*did you mean the file)"):
        find_schedule("folder.yaml")
    with pytest.raises(ScheduleError, match=r"/dev/null: is not a file that can be read"):
        find_schedule("/dev/null")
    with pytest.raises(ScheduleError, match=r"a\\x00b: no such file"):
        find_schedule("a\0b")


def test_every_shipped_schedule_is_listed_and_parses():
    for name, path in find.shipped_schedules().items():
        assert find_schedule(name) == path
        load_schedule(path, None)
