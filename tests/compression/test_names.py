"""Names and patterns of parameters."""

import pytest
import torch
from torch import nn

from potstill.compression.declare.names import ParameterIndex, UnknownName, normalise, resolve, resolve_mapping

NAMES = [
    "conv1.weight",
    "inception_blocks.0.conv_3x3.conv.weight",
    "inception_blocks.0.conv_3x3.conv.bias",
    "inception_blocks.0.conv_3x3.bn.weight",
    "inception_blocks.0.branch.conv_3x3.reduce.conv.weight",
    "inception_blocks.1.conv_5x5.conv.weight",
    "fc.weight",
]


@pytest.mark.parametrize(
    "written", ["conv1.weight", "module.conv1.weight", "conv1.module.weight", "_orig_mod.module.conv1.weight"]
)
def test_wrappers_do_not_matter(written):
    assert resolve([written], NAMES) == ["conv1.weight"]
    assert resolve(["conv1.weight"], [written]) == [written]


def test_a_part_of_a_component_is_no_wrapper():
    assert normalise("modules.module.my_module.weight") == "modules.my_module.weight"


def test_a_wrapped_model_takes_bare_names():
    model = nn.DataParallel(nn.Sequential(nn.Linear(2, 2)))
    assert resolve("0.weight", model) == ["module.0.weight"]


def test_a_pattern_fits_across_components_in_the_order_of_the_model():
    found = resolve(["inception_blocks.*.conv_3x3.*.weight"], NAMES)
    assert found == [NAMES[1], NAMES[3], NAMES[4]]


def test_order_is_that_of_the_list_and_each_comes_once():
    assert resolve(["fc.weight", "*.conv.weight", "module.fc.*"], NAMES) == ["fc.weight", NAMES[1], NAMES[4], NAMES[5]]


def test_one_text_is_one_name_not_a_list_of_letters():
    assert resolve("fc.weight", NAMES) == ["fc.weight"]


def test_brackets_are_letters_and_a_question_mark_is_one_letter():
    assert resolve(["a[0].*"], ["a[0].w", "a0.w"]) == ["a[0].w"]
    assert resolve(["a?.w"], ["a1.w", "a12.w"]) == ["a1.w"]


def test_tied_parameters_lead_to_the_first_name():
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    model[1].weight = model[0].weight
    assert resolve(["1.weight", "*.weight"], model) == ["0.weight"]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("fc.weigth", "the name 'fc.weigth' fits no parameter (did you mean fc.weight"),
        ("conv1", "the name 'conv1' fits no parameter (did you mean conv1.weight?)"),
        ("conv_3x3.conv.weight", f"(did you mean {NAMES[1]}?)"),
        ("blocks.*.nothing", "the pattern 'blocks.*.nothing' fits no parameter; the model's begin with conv1.weight"),
        ("", "the name '' fits no parameter"),
    ],
)
def test_what_fits_nothing_is_an_error_with_a_hint(written, message):
    with pytest.raises(UnknownName) as caught:
        resolve([written], NAMES)
    assert message in str(caught.value)


def test_all_unknown_names_are_told():
    with pytest.raises(UnknownName, match=r"'x'.*; .*'y\*'"):
        resolve(["x", "fc.weight", "y*"], NAMES)


def test_a_model_without_parameters():
    with pytest.raises(UnknownName, match="the model has none"):
        resolve(["*"], nn.ReLU())


def test_in_mappings_a_full_name_wins_over_a_pattern_and_star_takes_the_rest():
    values = {"*": 0.1, "*.conv.*": 0.2, "module.inception_blocks.1.conv_5x5.conv.weight": 0.3}
    found = resolve_mapping(values, NAMES, star=True)
    assert found == {
        **dict.fromkeys(NAMES, 0.1),
        **dict.fromkeys([NAMES[1], NAMES[2], NAMES[4]], 0.2),
        NAMES[5]: 0.3,
    }


def test_without_star_the_star_is_a_pattern():
    assert resolve_mapping({"*": 1, "fc.weight": 2}, NAMES) == {**dict.fromkeys(NAMES[:-1], 1), "fc.weight": 2}
    with pytest.raises(UnknownName, match="both fit conv1.weight and give it different values"):
        resolve_mapping({"*": 1, "conv1*": 2}, NAMES)


def test_star_may_be_left_with_nothing():
    assert resolve_mapping({"a.*": 1, "*": 2}, ["a.w"], star=True) == {"a.w": 1}


@pytest.mark.parametrize(
    ("first", "second"), [("*.conv.weight", "inception*"), ("fc.weight", "module.fc.weight"), ("fc.*", "f*.weight")]
)
def test_two_keys_for_one_parameter(first, second):
    with pytest.raises(UnknownName, match="both fit .* and give it different values"):
        resolve_mapping({first: 1, second: 2}, NAMES)
    assert resolve_mapping({first: 1, second: 1}, NAMES)


def test_patterns_with_many_stars_do_not_blow_up():
    assert ParameterIndex(["a" * 60] * 100).matches("*a" * 40 + "b") == []


def test_torch_compile_leaves_names_usable():
    assert resolve(["0.weight"], torch.compile(nn.Sequential(nn.Linear(1, 1)))) == ["_orig_mod.0.weight"]
