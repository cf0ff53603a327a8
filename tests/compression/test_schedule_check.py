"""Every mistake in a schedule is told, with file, line, path and a way out."""

import re
from textwrap import dedent

import pytest
from torch import nn

from potstill.compression.schedule import Schedule, ScheduleError, load_schedule

SCHEDULE = """\
version: 1
pruners:
  agp:
    class: AutomatedGradualPruner
    initial_sparsity : 0.05
    final_sparsity: 0.7
    weights: [conv.weight, module.fc.weight]
  level:
    class: SparsityLevelParameterPruner
    levels: {'*': 0.1, fc.weight: 0.5}
regularizers:
  lasso:
    class: GroupLassoRegularizer
    reg_regims:
      conv.weight: [1e-4, 2D]
      fc.*: [2e-4, 4D]
    threshold_criteria: Mean_Abs
lr_schedulers:
  decay: {class: StepLR, step_size: 45, gamma: 0.10}
extensions:
  thinner: {class: FilterRemover, thinning_func_str: remove_filters, arch: a, dataset: b}
policies:
  - pruner:
      instance_name: agp
      args:
        mini_batch_pruning_frequency: 3
    starting_epoch: 0
    ending_epoch: 10
    frequency: 2
  - pruner: {instance_name: level, args: {levels: {fc.weight: 0.9}}}
    epochs: [10, 12]
  - regularizer: {instance_name: lasso, args: {keep_mask: True}}
    starting_minibatch: 300
    ending_minibatch: 900
    minibatch_frequency: 100
  - extension: {instance_name: thinner}
    minibatches: [1000]
  - lr_scheduler: {instance_name: decay}
    starting_epoch: 0
    ending_epoch: 100
"""


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)


def load(text: str, tmp_path) -> Schedule:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    return load_schedule(file, Net(), name="s.yaml")


def complaints(text: str, tmp_path) -> list[str]:
    with pytest.raises(ScheduleError) as caught:
        load(text, tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems)
    return lines


def test_the_plan(tmp_path):
    schedule = load(SCHEDULE, tmp_path)
    assert schedule.warnings == []
    assert schedule.text == SCHEDULE
    agp = schedule.instances["pruners", "agp"]
    assert agp.cls.__name__ == "AutomatedGradualPruner"
    assert agp.args["weights"] == ["conv.weight", "module.fc.weight"]
    assert agp.line == 3
    assert schedule.instances["regularizers", "lasso"].args["reg_regims"] == {
        "conv.weight": (1e-4, "2D"),
        "fc.*": (2e-4, "4D"),
    }
    windows = [(plan.kind, plan.window.unit, list(plan.window.times)[:4], plan.line) for plan in schedule.policies]
    assert windows == [
        ("pruner", "epoch", [0, 2, 4, 6], 23),
        ("pruner", "epoch", [10, 12], 30),
        ("regularizer", "minibatch", [300, 400, 500, 600], 32),
        ("extension", "minibatch", [1000], 36),
        ("lr_scheduler", "epoch", [0, 1, 2, 3], 38),
    ]
    assert schedule.policies[0].args.mini_batch_pruning_frequency == 3
    assert schedule.policies[1].args.levels == {"fc.weight": 0.9}
    assert "pruner agp: epoch 0 to 10 (exclusive), every 2" in str(schedule)
    assert "pruners.level: SparsityLevelParameterPruner(levels={'*': 0.1, 'fc.weight': 0.5})" in str(schedule)


MISTAKES = [
    ("pruners:", "pruner:", "s.yaml:2: pruner: there is no such section (did you mean pruners?)"),
    ("version: 1", "version: [1]", "s.yaml:1: version: must be a number, not a list of 1"),
    ("version: 1", "version: hello", "s.yaml:1: version: must be a number, not the text 'hello'"),
    ("version: 1", "version: true", "s.yaml:1: version: must be a number, not true"),
    ("AutomatedGradualPruner", "AutomatedGradualPrunr", "s.yaml:4: pruners.agp.class: there is no class "
     "AutomatedGradualPrunr (did you mean AutomatedGradualPruner?)"),
    ("AutomatedGradualPruner", "Agp", "there is no class Agp (did you mean AutomatedGradualPruner?)"),
    ("class: AutomatedGradualPruner", "class: L1Regularizer", "L1Regularizer belongs in regularizers, not in pruners"),
    ("class: AutomatedGradualPruner", "clas: AutomatedGradualPruner",
     "s.yaml:3: pruners.agp: `class` is missing (is clas it?)"),
    ("class: AutomatedGradualPruner", "class: [1]", "must be the name of a class, not a list of 1"),
    ("  level:\n", "  level: 3\n  other:\n", "s.yaml:8: pruners.level: must be a mapping with `class`"),
    ("final_sparsity", "final_sparsty", "s.yaml:6: pruners.agp.final_sparsty: there is no such argument "
     "(did you mean final_sparsity?)"),
    ("    final_sparsity: 0.7\n", "", "s.yaml:3: pruners.agp: the argument `final_sparsity` is missing (a number"),
    ("0.7", "1.7", "s.yaml:6: pruners.agp.final_sparsity: must be a number of at least 0 and at most 1, not 1.7"),
    ("0.7", "'0.7'", "not the text '0.7' (write it without quotes)"),
    ("0.7", ".nan", "final_sparsity: must be a number of at least 0 and at most 1, not nan"),
    ("0.7", "", "final_sparsity: must be a number of at least 0 and at most 1, not nothing (null)"),
    ("0.7", "true", "final_sparsity: must be a number of at least 0 and at most 1, not true"),
    ("0.7", "0.01", "s.yaml:6: pruners.agp.final_sparsity: 0.01 must be above initial_sparsity 0.05"),
    ("module.fc.weight]", "\n      module.fc.wieght]", "s.yaml:8: pruners.agp.weights[1]: the name 'module.fc.wieght' "
     "fits no parameter (did you mean fc.weight"),
    ("[conv.weight, module.fc.weight]", "[]", "weights: names no parameter: give at least one name or pattern"),
    ("[conv.weight, module.fc.weight]", "''", "s.yaml:7: pruners.agp.weights: the name '' fits no parameter"),
    ("[conv.weight, module.fc.weight]", "{a: 1}", "must be a name or a list of names of parameters, not a mapping (a)"),
    ("[conv.weight, module.fc.weight]", "[conv.weight, 3]", "weights[1]: must be a text, not 3 (put it in quotes)"),
    ("fc.weight: 0.5", "fc.weight: 5", "s.yaml:10: pruners.level.levels.fc.weight: must be a number of at least 0 and"),
    ("fc.weight: 0.5", "convv.*: 0.5", "levels.convv.*: the pattern 'convv.*' fits no parameter"),
    ("fc.weight: 0.5", "fc.*: 0.5, '*.weight': 0.6", "levels.*.weight: 'fc.*' and '*.weight' both fit fc.weight"),
    ("2D", "2d", "s.yaml:15: regularizers.lasso.reg_regims.conv.weight[1]: must be one of 2D, 3D, "),
    ("[1e-4, 2D]", "[1e-4, 2D, 3]", "must be a list of 2: a number of at least 0; one of 2D, "),
    ("[2e-4, 4D]", "[2e-4, 2D]", "s.yaml:16: regularizers.lasso.reg_regims.fc.*: 2D needs a weight of 3 dimensions"),
    ("Mean_Abs", "mean_abs", "threshold_criteria: must be one of Max, Mean_Abs, not the text 'mean_abs' "
     "(did you mean Mean_Abs?)"),
    ("45", "45.0",
     "s.yaml:19: lr_schedulers.decay.step_size: must be a whole number of at least 1, not 45.0 (write 45)"),
    ("45", "0", "step_size: must be a whole number of at least 1, not 0"),
    ("StepLR", "StepLr", "lr_schedulers.decay.class: there is no class StepLr (did you mean StepLR?)"),
    ("StepLR, step_size: 45, gamma: 0.10", "LambdaLR, lr_lambda: x",
     "LambdaLR takes a Python function (lr_lambda), which a schedule cannot give"),
    ("StepLR, step_size: 45, gamma: 0.10", "OneCycleLR, max_lr: 0.1",
     "s.yaml:19: lr_schedulers.decay: OneCycleLR refuses its arguments: You must define either total_steps OR"),
    ("remove_filters", "remove_filter", "thinning_func_str: must be one of remove_filters, remove_channels, "),
    ("policies:", "policy:", "s.yaml:1: `policies` is missing: nothing would ever act"),
    ("instance_name: agp", "instance_name: apg",
     "s.yaml:24: policies[0].pruner.instance_name: pruners defines no "
     "'apg' (did you mean agp?)"),
    ("instance_name: agp", "instance_name: lasso", "'lasso' is defined in regularizers: make this a `regularizer:`"),
    ("instance_name: agp", "instance: agp", "s.yaml:23: policies[0].pruner: `instance_name` is missing"),
    ("instance_name: agp", "instance: agp", "policies[0].pruner.instance: there is no such key (did you mean"),
    ("instance_name: agp", "instance_name: 3", "must be the name of an instance, not 3"),
    ("instance_name: agp", "instance_name: agp\n      starting_epoch: 3",
     "policies[0].pruner.starting_epoch: belongs beside `pruner:`, one level further out"),
    ("instance_name: agp", "instance_name: agp\n      keep_mask: true",
     "policies[0].pruner.keep_mask: belongs into `args`, one level further in"),
    ("    starting_epoch: 0\n    ending_epoch: 10", "    args: {}\n    starting_epoch: 0\n    ending_epoch: 10",
     "policies[0].args: belongs inside the kind, below `pruner:`"),
    ("mini_batch_pruning_frequency", "minibatch_pruning_frequency", "s.yaml:26: policies[0].pruner.args."
     "minibatch_pruning_frequency: there is no such argument (did you mean mini_batch_pruning_frequency?)"),
    ("mini_batch_pruning_frequency: 3", "keep_mask: yes",
     "keep_mask: must be true or false, not the text 'yes' (write true)"),
    ("mini_batch_pruning_frequency: 3", "mask_gradients: true",
     "s.yaml:25: policies[0].pruner.args: mask_gradients needs mask_on_forward_only: true"),
    ("args: {levels: {fc.weight: 0.9}}", "args: {levels: {fc: 0.9}}",
     "s.yaml:30: policies[1].pruner.args.levels.fc: "
     "the name 'fc' fits no parameter (did you mean fc.weight or fc.bias?)"),
    ("args: {levels: {fc.weight: 0.9}}", "args: 3", "policies[1].pruner.args: must be a mapping, not 3"),
    ("{instance_name: thinner}", "{instance_name: thinner, args: {a: 1}}",
     "a policy of kind `extension` takes no args"),
    ("- extension: {instance_name: thinner}\n    minibatches: [1000]", "- thinner",
     "s.yaml:36: policies[3]: must be a mapping of a kind (pruner, regularizer, lr_scheduler, extension) and times"),
    ("- extension: {", "- extensions: {",
     "s.yaml:36: policies[3].extensions: there is no such key (did you mean extension?)"),
    ("- extension: {", "- extensions: {",
     "policies[3]: has no kind: give exactly one of pruner, regularizer, lr_scheduler, extension"),
    ("- extension: {instance_name: thinner}", "- extension: {instance_name: thinner}\n    pruner: {instance_name: agp}",
     "policies[3]: has 2 kinds (extension, pruner): give exactly one"),
    ("- extension: {instance_name: thinner}", "- extension:",
     "policies[3].extension: must be a mapping with `instance_name`, not nothing (null)"),
    ("    ending_epoch: 10\n", "", "s.yaml:23: policies[0]: `ending_epoch` is missing"),
    ("ending_epoch: 10\n", "ending_epoch: 0\n",
     "policies[0].starting_epoch: a window needs 0 <= start < end, not 0 to 0"),
    ("frequency: 2\n", "frequency: 11\n", "a frequency of 11 does not fit into 0 to 10"),
    ("frequency: 2\n", "frequency: 2.0\n", "frequency: must be a whole number of at least 1, not 2.0 (write 2)"),
    ("frequency: 2\n", "freqency: 2\n",
     "s.yaml:29: policies[0].freqency: there is no such key (did you mean frequency?)"),
    ("[10, 12]", "[12, 10]",
     "s.yaml:31: policies[1].epochs: a list of times must be rising and not empty, not [12, 10]"),
    ("[10, 12]", "[]", "epochs: a list of times must be rising and not empty"),
    ("[10, 12]", "10", "epochs: must be a list (each a whole number of at least 0), not 10"),
    ("[10, 12]", "[10, 12]\n    starting_epoch: 3", "policies[1]: mixes epochs and starting_epoch: give either"),
    ("minibatches: [1000]", "frequency: 1\n    minibatches: [1000]", "policies[3]: mixes frequency and minibatches"),
    ("    minibatches: [1000]\n", "", "s.yaml:36: policies[3]: does not say when it acts: give either"),
    ("    initial_sparsity : 0.05\n", "    initial_sparsity: 0.05\n    initial_sparsity: 0.05\n",
     "s.yaml:6: pruners.agp.initial_sparsity: stands twice, in lines 5 and 6: remove one"),
    ("    threshold_criteria:", "      conv.weight: [2e-4, 2D]\n    threshold_criteria:",
     "s.yaml:17: regularizers.lasso.reg_regims.conv.weight: stands twice, in lines 15 and 17: remove one"),
    ("    threshold_criteria:", "      module.conv.weight: [2e-4, 2D]\n    threshold_criteria:",
     "reg_regims.module.conv.weight: 'conv.weight' and 'module.conv.weight' both fit conv.weight and give it "),
    ("lr_schedulers:", "quantizers: {q: {class: DorefaQuantizer, bits_weights: 4}}\nlr_schedulers:",
     "s.yaml:18: quantizers.q: DorefaQuantizer: quantization is not supported; remove the quantizer and its policies"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_a_mistake_is_told(old, new, message, tmp_path):
    assert old in SCHEDULE
    found = complaints(SCHEDULE.replace(old, new, 1), tmp_path)
    assert any(message in line for line in found), found
    assert all(line.startswith("s.yaml:") for line in found)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path):
    text = SCHEDULE
    edits = [("0.7", "7"), ("fc.weight: 0.5", "fc: 0.5"), ("45", "a"), ("lasso, a", "lass, a"), ("[1000]", "[-1]")]
    for old, new in edits:
        text = text.replace(old, new, 1)
    numbers = [int(re.match(r"s\.yaml:(\d+): ", line).group(1)) for line in complaints(text, tmp_path)]
    assert numbers == [6, 10, 19, 32, 37]


@pytest.mark.parametrize("text", ["[1, 2]", "just text", "3", "null"])
def test_a_schedule_is_a_mapping(text, tmp_path):
    assert complaints(text, tmp_path)[0].startswith("s.yaml:1: must be a mapping with `policies`")


@pytest.mark.parametrize(
    ("text", "what"), [("", "nothing (null)"), ("[]", "an empty list"), ("{a: 1}", "a mapping (a)")]
)
def test_policies_must_say_something(text, what, tmp_path):
    assert complaints(f"policies: {text}", tmp_path) == [f"s.yaml:1: policies: must be a list of policies, not {what}"]


def test_harmless_things_are_warned_about(tmp_path):
    text = SCHEDULE.replace("{instance_name: level, args: {levels: {fc.weight: 0.9}}}", "{instance_name: agp}")
    text = text.replace("gamma: 0.10", "verbose: true").replace("version: 1", "quantizers:")
    text = text.replace("    threshold_criteria:", "      conv.weight: [0.0001, 2D]\n    threshold_criteria:")
    assert load(text, tmp_path).warnings == [
        "s.yaml:17: regularizers.lasso.reg_regims.conv.weight: stands twice, in lines 15 and 17, with the same value",
        "s.yaml:1: quantizers: is empty",
        "s.yaml:20: lr_schedulers.decay.verbose: is ignored: torch has removed it",
        "s.yaml:8: pruners.level: is never used by a policy",
    ]


def test_unused_definitions_are_told_in_the_order_of_the_file(tmp_path):
    lines = [f"  p{i}: {{class: SparsityLevelParameterPruner, levels: {{conv.weight: 0.5}}}}" for i in range(12)]
    text = "\n".join(["pruners:", *lines, "policies:", "  - {pruner: {instance_name: p0}, epochs: [1]}"])
    told = load(text, tmp_path).warnings
    assert told == [f"s.yaml:{i + 2}: pruners.p{i}: is never used by a policy" for i in range(1, 12)]


def test_warnings_come_with_the_mistakes(tmp_path):
    text = SCHEDULE.replace("gamma: 0.10", "verbose: true").replace("0.7", "7")
    with pytest.raises(ScheduleError) as caught:
        load(text, tmp_path)
    assert caught.value.warnings == ["s.yaml:19: lr_schedulers.decay.verbose: is ignored: torch has removed it"]


@pytest.mark.parametrize("version", ["2", "1.0", "'1.0.3'", ""])
def test_versions_are_numbers(version, tmp_path):
    assert load(SCHEDULE.replace("version: 1", f"version: {version}"), tmp_path).policies


def test_an_alias_may_serve_two_names(tmp_path):
    text = dedent("""
        pruners:
          a: &a {class: SparsityLevelParameterPruner, levels: {conv.weight: 0.5}}
          b: *a
          c: {<<: *a, levels: {fc.weight: 0.5}}
        policies:
          - &p {pruner: {instance_name: a}, epochs: [1]}
          - {<<: *p, pruner: {instance_name: b}}
          - {<<: *p, pruner: {instance_name: c}}
    """)
    schedule = load(text, tmp_path)
    levels = [plan.args["levels"] for plan in schedule.instances.values()]
    assert levels == [{"conv.weight": 0.5}, {"conv.weight": 0.5}, {"fc.weight": 0.5}]
    assert [plan.window.start for plan in schedule.policies] == [1, 1, 1]


def test_without_a_model_only_names_go_unchecked(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(SCHEDULE.replace("conv.weight", "any.name"))
    assert len(load_schedule(file, None).policies) == 5
    file.write_text(SCHEDULE.replace("45", "x"))
    with pytest.raises(ScheduleError, match="step_size"):
        load_schedule(file, None)
