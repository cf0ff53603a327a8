"""Recipes of SparseML: read without running anything, translated, loaded, trained."""

import math

import pytest
import torch
import yaml

from potstill.command.migration.sparseml import print_schedule, schedule_of_recipe, text_of
from potstill.command.migration.sparseml_recipe import calculate, read_recipe
from potstill.compression import ScheduleError, dict_config
from potstill.models import create_model
from potstill.thinning import load, save

RECIPE = """<!-- a licence -->

---
# General
num_epochs: &num_epochs 12
init_lr: &init_lr 0.05
half: eval(num_epochs / 2)

training_modifiers:
  - !EpochRangeModifier
    start_epoch: 0.0
    end_epoch: eval(num_epochs)
  - !SetLearningRateModifier
    start_epoch: 0
    learning_rate: *init_lr
  - !LearningRateFunctionModifier {start_epoch: 2, end_epoch: *num_epochs, lr_func: cosine, init_lr: 0.05, final_lr: 0}

pruning_modifiers:
  - !GMPruningModifier
    params: ["re:layer[23].*conv1.weight", fc.weight]
    init_sparsity: 0.1
    final_sparsity: 0.8
    start_epoch: 2.0
    end_epoch: eval(half)
    update_frequency: 2.0
    mask_type: unstructured
  - !ConstantPruningModifier
    start_epoch: 0.0
    params: __ALL_PRUNABLE__
quantization_modifiers:
  - !QuantizationModifier
    start_epoch: 10
---
# Prose: and more lines
"""


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("resnet20_cifar")


def recipe(tmp_path, text=RECIPE):
    path = tmp_path / "recipe.md"
    path.write_text(text, encoding="utf-8")
    return path


def modifiers(*entries):
    """A recipe of entries `!Kind {…}`."""
    return "modifiers:\n" + "".join(f"  - {entry}\n" for entry in entries)


EPOCHS = "!EpochRangeModifier {start_epoch: 0, end_epoch: 10}"


def test_a_recipe_becomes_a_schedule(tmp_path, model):
    result = schedule_of_recipe(recipe(tmp_path), model)
    assert result.epochs == 12
    gradual, zeros = result.schedule["pruners"].values()
    names = [name for name, p in model.named_parameters() if p.dim() > 1]
    assert gradual["weights"] == [n for n in names if n.startswith(("layer2", "layer3")) and "conv1" in n] + [
        "fc.weight"
    ]
    assert (gradual["initial_sparsity"], gradual["final_sparsity"]) == (0.1, 0.8)
    assert set(zeros["thresholds"]) == set(names)
    assert [line for line, _ in result.notes] == [31] and "torchao" in result.notes[0][1]


def test_sparsity_and_rate_are_sparsemls_at_each_epoch(tmp_path, model):
    """Its formulas: final + (initial - final) (1 - progress)^3, the last update at `end_epoch`; half a cosine."""
    with torch.no_grad():
        model.layer1[0].conv1.weight[0] = 0
    schedule = schedule_of_recipe(recipe(tmp_path), model).schedule
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scheduler = dict_config(model, optimizer, schedule, example_inputs=torch.randn(2, 3, 32, 32))
    for epoch in range(12):
        scheduler.on_epoch_begin(epoch, optimizer)
        rate = 0.05 if epoch < 2 else 0.05 * (1 + math.cos(math.pi * (epoch - 2) / 10)) / 2
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)
        progress = (min(epoch, 6) - 2) // 2 * 2 / 4
        wanted = 0.0 if epoch < 2 else 0.8 + (0.1 - 0.8) * (1 - progress) ** 3
        mask = scheduler.masks["layer3.0.conv1.weight"].mask
        assert (0 if mask is None else int((mask == 0).sum())) == int(wanted * 64 * 32 * 9)
        assert not scheduler.masks["layer1.0.conv1.weight"].mask[0].any()
        scheduler.on_epoch_end(epoch, optimizer)


def test_the_text_is_a_schedule_and_says_what_is_missing(tmp_path, model, capsys):
    path = recipe(tmp_path)
    print_schedule(path, model, "resnet20_cifar", {})
    printed, errors = capsys.readouterr()
    assert yaml.safe_load(printed) == yaml.safe_load(
        text_of(schedule_of_recipe(path, model), path.name, "resnet20_cifar")
    )
    assert "# compress-classifier --arch resnet20_cifar --compress THIS_FILE --epochs 12" in printed
    assert "# line 31: !QuantizationModifier: not translated" in printed
    assert f"{path}:31: !QuantizationModifier: not translated" in errors


def test_structures_go_through_to_a_thinned_file(tmp_path, model):
    text = modifiers(
        "!EpochRangeModifier {start_epoch: 0, end_epoch: 3}",
        "!GMPruningModifier {start_epoch: 0, end_epoch: 2, update_frequency: 1, init_sparsity: 0.25, "
        "final_sparsity: 0.5, mask_type: filter, params: ['re:layer..0.conv1.weight']}",
    )
    schedule = schedule_of_recipe(recipe(tmp_path, text), model).schedule
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    inputs = torch.randn(2, 3, 32, 32)
    scheduler = dict_config(model, optimizer, schedule, example_inputs=inputs)
    for epoch in range(3):
        scheduler.on_epoch_begin(epoch, optimizer)
        scheduler.on_minibatch_begin(epoch, 0, 1, optimizer)
        model(inputs).square().mean().backward()
        scheduler.before_parameter_optimization(epoch, 0, 1, optimizer)
        optimizer.step()
        scheduler.on_minibatch_end(epoch, 0, 1, optimizer)
    scheduler.finish()
    model.eval()
    expected = model(inputs)
    path = save(model, scheduler.thin(optimizer), tmp_path / "thin.safetensors")
    thin = load(create_model("resnet20_cifar"), path).eval()
    assert thin.layer3[0].conv1.out_channels == 32
    assert torch.allclose(thin(inputs), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("entry", "pruner"),
    [
        ("final_sparsity: 0.5, global_sparsity: True", {"class": "GlobalMagnitudePruner_AGP", "final_sparsity": 0.5}),
        ("final_sparsity: 0.5, mask_type: '2:4'", {"class": "NMPruner", "n": 2, "m": 4}),
        ("final_sparsity: 0.5, mask_type: [1, 4]", {"group_type": "Blocks", "kwargs": {"block_shape": [1, 4]}}),
        ("final_sparsity: {0.4: [fc.weight]}", {"class": "AutomatedGradualPruner", "final_sparsity": 0.4}),
        ("final_sparsity: 0.5, init_sparsity: __FROM_PARAM__", {"initial_sparsity": 0.0}),
    ],
)
def test_kinds_of_masks(tmp_path, model, entry, pruner):
    text = modifiers(EPOCHS, f"!GMPruningModifier {{start_epoch: 1, end_epoch: 4, params: [fc.weight], {entry}}}")
    (found,) = schedule_of_recipe(recipe(tmp_path, text), model).schedule["pruners"].values()
    assert pruner.items() <= found.items() and found["weights"] == ["fc.weight"]


def rates(result):
    return result.schedule["lr_schedulers"]["rates"]["pieces"]


def test_rates_of_torchs_classes_and_a_later_one_that_ends_an_earlier(tmp_path, model):
    multi = "lr_kwargs: {milestones: [2, 5], gamma: 0.1}"
    text = modifiers(
        EPOCHS,
        f"!LearningRateModifier {{start_epoch: 0, end_epoch: 6, lr_class: MultiStepLR, {multi}, init_lr: 0.4}}",
        "!LearningRateFunctionModifier {start_epoch: 6, end_epoch: 10, lr_func: linear, init_lr: 0.4, final_lr: 0}",
        "!SetLearningRateModifier {start_epoch: 8, learning_rate: 0.3}",
    )
    found = rates(schedule_of_recipe(recipe(tmp_path, text), model))
    assert [(first, pytest.approx(rate)) for first, _, rate, _, _ in found] == [
        (0, 0.4), (2, 0.04), (5, 0.004), (6, 0.4), (8, 0.3),
    ]  # fmt: skip
    assert found[3][1:4] == [8, 0.4, pytest.approx(0.2)]


def test_distillation_takes_the_teacher_from_the_command_line(tmp_path, model):
    text = modifiers(EPOCHS, "!DistillationModifier {hardness: 0.7, temperature: 4.0}")
    path = recipe(tmp_path, text)
    result = schedule_of_recipe(path, model)
    assert "--kd-temp 4 --kd-distill-wt 0.7 --kd-student-wt 0.3 --kd-start-epoch 0" in text_of(
        result, "r", "resnet20_cifar"
    )
    given = schedule_of_recipe(path, model, {"arch": "resnet56_cifar", "checkpoint": "t.pt"})
    (found,) = given.schedule["extensions"].values()
    assert (found["distill_weight"], found["student_weight"], found["temperature"]) == (0.7, 0.3, 4.0)
    assert not given.notes


@pytest.mark.parametrize(
    ("entry", "note"),
    [
        ("!MovementPruningModifier {start_epoch: 0}", "no equal here"),
        ("!GMPruningModifier {start_epoch: 1, end_epoch: 4, final_sparsity: 0.5, inter_func: linear}", "inter_func"),
        ("!GMPruningModifier {start_epoch: 1, end_epoch: 4, params: [none], final_sparsity: 1}", "fits no parameter"),
        ("!GMPruningModifier {start_epoch: 1, end_epoch: 4, params: ['re:(a+)+$'], final_sparsity: 1}", "not a simple"),
        ("!GMPruningModifier {start_epoch: 4, end_epoch: 4, final_sparsity: 0.5}", "is not after"),
        ("!GMPruningModifier {start_epoch: .inf, end_epoch: 4, final_sparsity: 0.5}", "not a number"),
        ("!GMPruningModifier {start_epoch: 0.5, end_epoch: 4, final_sparsity: 0.5}", "is rounded to 0"),
        ("!LearningRateFunctionModifier {start_epoch: 0, end_epoch: 4, lr_func: saw}", "lr_func 'saw'"),
        ("!LearningRateModifier {lr_class: LambdaLR, init_lr: 1}", "lr_class 'LambdaLR'"),
        ("!SetLearningRateModifier {start_epoch: 0, learning_rate: fast}", "learning_rate is 'fast', not a number"),
        ("!Nonsense", "no equal here"),
        ("!LearningRateModifier {lr_class: [1], init_lr: 1}", "lr_class [1]"),
        ("!LearningRateModifier {lr_class: StepLR, init_lr: -1, lr_kwargs: {step_size: 2}}", "Invalid learning rate"),
        ("!LearningRateModifier {lr_class: StepLR, init_lr: 1, lr_kwargs: {step_size: 0}}", "ZeroDivisionError"),
        ("!LearningRateModifier {lr_class: MultiStepLR, init_lr: 1, lr_kwargs: {milestones: [.inf]}}", "Overflow"),
        ("!EpochRangeModifier {start_epoch: 0, end_epoch: 1e300}", "end_epoch is 1e+300"),
    ],
)
def test_what_cannot_be_said_is_named_with_its_line(tmp_path, model, entry, note):
    result = schedule_of_recipe(recipe(tmp_path, modifiers(EPOCHS, entry)), model)
    assert any(line == 3 and note in text for line, text in result.notes), result.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("modifiers: []", "has no modifiers"),
        ("- 3", "is no recipe"),
        ("modifiers: [{start_epoch: 1}]", "is no modifier"),
        ("modifiers:\n  - !!python/object/apply:os.system ['touch it']", "is not allowed"),
        ("modifiers:\n  - !A {a: eval(__import__('os').system('touch it'))}", "recipe.md:2: .*neither a number"),
        ("n: 3\nmodifiers:\n  - !A {a: eval(n / 0)}", "recipe.md:3: .*division"),
        ("modifiers:\n  - !A {a: eval(9 ** 9 ** 9)}", "neither a number"),
        ("a: &a0 [x, x]\n" + "\n".join(f"b{i}: &a{i + 1} [*a{i}, *a{i}]" for i in range(20)), "more than 20000"),
        ("modifiers: [!A x]", "before something else than a mapping"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path, text, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScheduleError, match=message):
        read_recipe(recipe(tmp_path, text))
    assert not (tmp_path / "it").exists()


def test_expressions():
    assert calculate("(a + 2) * b - 6 // 4", {"a": 1, "b": "eval(a / 2)"}) == 0.5
    with pytest.raises(ValueError, match="too long"):
        calculate("b", {"b": "eval(b)"})


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ('"re:.*layer3.1.(conv1|conv2).weight"', ["layer3.1.conv1.weight", "layer3.1.conv2.weight"]),
        ('"re:layer3.1.(?:conv1|bn1).weight"', ["layer3.1.conv1.weight", "layer3.1.bn1.weight"]),
        ("module.fc.weight", ["fc.weight"]),
    ],
)
def test_alternatives_and_names_of_wrapped_networks(tmp_path, model, asked, names):
    text = modifiers(f"!GMPruningModifier {{params: [{asked}], final_sparsity: 0.5, start_epoch: 0, end_epoch: 4}}")
    (pruner,) = schedule_of_recipe(recipe(tmp_path, text), model).schedule["pruners"].values()
    assert pruner["weights"] == [name for name, _ in model.named_parameters() if name in names]


@pytest.mark.parametrize("asked", ["re:(a|a)*b", "re:((a))", "re:.*.*.*.*(a|b)(a|b)"])
def test_expressions_that_might_take_for_ever_are_not_tried(tmp_path, model, asked):
    text = modifiers(f'!ConstantPruningModifier {{params: ["{asked}"], start_epoch: 0}}')
    ((_, note),) = schedule_of_recipe(recipe(tmp_path, text), model).notes
    assert "is not a simple one" in note


def test_modifiers_that_are_keys_are_named_and_nothing_is_no_schedule(tmp_path, model, capsys):
    text = "stage:\n  obcq_modifiers:\n    SparseGPTModifier:\n      sparsity: 0.5\n    QuantizationModifier:\n"
    path = recipe(tmp_path, text)
    with pytest.raises(ScheduleError, match=r"nothing of it is for a schedule of resnet20_cifar to do"):
        print_schedule(path, model, "resnet20_cifar", {})
    printed, errors = capsys.readouterr()
    assert not printed and f"{path}:3: !SparseGPTModifier" in errors and f"{path}:5: !QuantizationModifier" in errors
