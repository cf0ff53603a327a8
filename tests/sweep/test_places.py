"""Where `--sweep` sets values: any of the schedule, by its path; a wrong one is told what there is."""

import pytest
import yaml

from potstill.command.cli.sweep_options import Axis
from potstill.command.errors import UsageError
from potstill.command.sweep import variants
from potstill.command.sweep.places import find_place, with_value

DATA = yaml.safe_load("""
pruners:
  agp: {class: AutomatedGradualPruner, final_sparsity: 0.6, levels: {conv1.weight: 0.5, conv1.weight.mask: 0.1}}
  both: {class: X, weights: [a, b]}
regularizers:
  both: {class: Y}
policies:
  - {pruner: {instance_name: agp, args: {mini_batch_pruning_frequency: 2}}, starting_epoch: 0, ending_epoch: 3}
  - {pruner: {instance_name: both}, epochs: [1, 2]}
""")


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("agp.final_sparsity", ("pruners", "agp", "final_sparsity")),
        ("pruners.agp.final_sparsity", ("pruners", "agp", "final_sparsity")),
        ("agp.levels.conv1.weight", ("pruners", "agp", "levels", "conv1.weight")),
        ("agp.levels.conv1.weight.mask", ("pruners", "agp", "levels", "conv1.weight.mask")),
        ("agp.left_out", ("pruners", "agp", "left_out")),
        ("regularizers.both.class", ("regularizers", "both", "class")),
        ("policies[0].ending_epoch", ("policies", 0, "ending_epoch")),
        ("policies[0].frequency", ("policies", 0, "frequency")),
        ("policies[0].pruner.args.mini_batch_pruning_frequency",
         ("policies", 0, "pruner", "args", "mini_batch_pruning_frequency")),
        ("policies[1].epochs[1]", ("policies", 1, "epochs", 1)),
        ("policies[1].epochs", ("policies", 1, "epochs")),
    ],
)  # fmt: skip
def test_a_path_leads_to_its_value(key, path):
    assert find_place(DATA, key) == path
    changed, left = with_value(DATA, path, "new"), DATA
    for part in path[:-1]:
        changed, left = changed[part], left[part]
    assert changed[path[-1]] == "new"
    assert {**dict(enumerate(left))} if isinstance(left, list) else left.get(path[-1]) != "new"


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("gate.target", "there is no gate in the schedule: there are agp, both, policies[0], policies[1], ..."),
        ("agpp.final_sparsity", "there is no agpp in the schedule (did you mean agp?)"),
        ("both.class", "both stands in pruners and regularizers: write pruners.both.class"),
        ("agp.levels.conv2.weight", "there is no conv2.weight in pruners.agp.levels (did you mean conv1.weight?)"),
        ("agp.final_sparsity.x", "pruners.agp.final_sparsity is 0.6, and has nothing inside"),
        ("policies[2].epochs", "policies is a list of 2: policies[0] is its first"),
        ("policies.0.epochs", "policies is a list of 2: policies[0] is its first"),
        ("agp", "names no value: write which of it, agp.final_sparsity"),
    ],
)
def test_a_wrong_path_is_told_what_there_is(key, told):
    with pytest.raises(UsageError) as caught:
        find_place(DATA, key)
    assert str(caught.value).startswith(f"--sweep {key}: {told}")


def test_values_are_those_of_yaml():
    assert Axis.parse("a.b=1e-4,on,[x.*,'y'],null,0.30").values == (1e-4, "on", ["x.*", "y"], None, 0.3)


@pytest.mark.parametrize("text", ["a.b", "a.b=", "=1,2", "a.b=[1", "a.b=!!python/object:os.system {}"])
def test_what_is_no_axis_is_said(text):
    with pytest.raises(ValueError, match="is not KEY=VALUE,VALUE"):
        Axis.parse(text)


def test_a_value_twice_is_said():
    with pytest.raises(ValueError, match="names a value twice"):
        Axis.parse("a.b=1,2,1.0")


def test_a_grid_has_each_combination_and_leaves_the_schedule_alone():
    before = yaml.safe_dump(DATA)
    points = list(variants(DATA, {"agp.final_sparsity": [0.2, 0.4], "policies[1].epochs": [[1], [3, 4]]}))
    found = [(p.data["pruners"]["agp"]["final_sparsity"], p.data["policies"][1]["epochs"]) for p in points]
    assert found == [(0.2, [1]), (0.2, [3, 4]), (0.4, [1]), (0.4, [3, 4])]
    assert yaml.safe_dump(DATA) == before
    assert len({p.name for p in points}) == 4
    assert all(yaml.safe_load(p.text) == p.data for p in points)


def test_a_grid_has_not_any_size():
    """Of a stranger's sweep.json, say: it is said before the first point is made."""
    many = list(range(1000))
    with pytest.raises(UsageError, match="make 1,000,000,000 runs, and 1,000 are the most"):
        next(variants(DATA, {"agp.final_sparsity": many, "agp.initial_sparsity": many, "agp.weights": many}))


def test_names_are_folders_everywhere():
    (plain,) = variants(DATA, {"agp.final_sparsity": [0.2]})
    (strange,) = variants(DATA, {"agp.weights": [["../../*", "a" * 300]]})
    assert plain.name == "agp.final_sparsity=0.2"
    assert len(strange.name) < 130 and not set(strange.name) & set('/\\:*?"<>| ')
