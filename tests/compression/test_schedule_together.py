"""A mistake in an instance hides no other, and none is told that is not one."""

import pytest

from potstill.compression import Pruner
from potstill.compression.declare import registry
from potstill.compression.declare.registry import register
from potstill.compression.pruners import RigLPruner

from .told import AGP, FALLING, FC_2D, GRADUAL, LASSO, RANKED, Net, of_instance


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_classes", {section: dict(known) for section, known in registry._classes.items()})


@pytest.mark.parametrize(
    ("definition", "messages"),
    [
        (
            GRADUAL | {"foo": 3, "group_type": "2D", "weights": ["fc.weight", "conv1.weight"]},
            ["foo: there is no such argument; it takes", FALLING, FC_2D],
        ),
        (
            GRADUAL | {"group_dependency": "Boss", "group_type": "2D", "weights": ["fc.weight", "nope"]},
            ["group_dependency: must be", "weights[1]: the name 'nope' fits no parameter", FALLING, FC_2D],
        ),
        (
            {"class": "L1RankedStructureParameterPruner", "group_type": "2D", "weights": "fc.weight"},
            ["the argument `desired_sparsity` is missing", FC_2D],
        ),
        (
            GRADUAL | {"kwargs": {"block": 3}, "weights": ["norm.weight"]},
            [FALLING, "kwargs: kwargs are for Blocks; Filters takes none", "group_type: Filters needs a weight of 2"],
        ),
        (GRADUAL | {"group_type": "Blocks", "kwargs": {"block": 3}}, [FALLING, "kwargs: Blocks needs kwargs: {block_"]),
        (
            RANKED | {"group_dependency": "Leader", "weights": ["conv1.weight", "nope", "conv2.weight"], "noise": 2},
            ["weights[1]: the name 'nope'", "noise: must be", "weights[2]: Leader conv1.weight decides over 8"],
        ),
        (
            RANKED
            | {"group_size": 3, "group_type": "Channels", "weights": ["conv1.weight", "conv2.weight", "norm.bias"]},
            ["group_type: Channels needs", "group_size: 3 does not divide conv2.weight's 8 structures"],
        ),
        (
            {"class": "RandomLevelStructureParameterPruner", "sparsity_range": [0.9, 0.1], "weights": ["fc.bias"]},
            ["sparsity_range: 0.9 must not be above 0.1", "group_type: Filters needs a weight of 2 dimensions"],
        ),
        (
            {"class": "NMPruner", "weights": ["conv1.weight", "nope"], "n": 5},
            [
                "weights[1]: the name 'nope'",
                "n: cannot keep 5 of 4",
                "weights[0]: 4 does not divide the inputs of conv1",
            ],
        ),
        (
            {"class": "GlobalMagnitudePruner", "desired_sparsity": 2, "weights": ["norm.*"]},
            ["desired_sparsity: must be", "weights: norm.* fit parameters of norms only"],
        ),
        (
            {"class": "GlobalMagnitudePruner_AGP", "initial_sparsity": 0.9, "final_sparsity": 0.5, "weights": "norm.*"},
            ["weights: norm.* fit parameters of norms only", FALLING],
        ),
        ({"class": "GlobalMagnitudePruner", "desired_sparsity": 2, "weights": ["norm.*", "norm.weight"]}, ["desired"]),
        (
            {"class": "GlobalMagnitudePruner", "desired_sparsity": 0.5, "weights": ["cnov1.*", "norm.*"]},
            ["weights[0]: the pattern 'cnov1.*' fits no parameter"],
        ),
        (
            {"class": "SplicingPruner", "sensitivities": {"x": 1}, "low_thresh_mult": 1.1, "hi_thresh_mult": 0.9},
            ["sensitivities.x: the name 'x'", "hi_thresh_mult: 0.9 must not be below low_thresh_mult 1.1"],
        ),
        (
            {"class": "ActivationAPoZRankedFilterPruner", "desired_sparsity": 2, "weights": ["none"]},
            [
                "desired_sparsity: must be",
                "group_type: none of shape (0, 3) has no elements",
                "weights[0]: none is of a",
            ],
        ),
        (
            {"class": "FMReconstructionChannelPruner", "desired_sparsity": 2, "weights": ["up.weight"]},
            ["desired_sparsity: must be", "weights[0]: up.weight: only Linear layers and Conv2d without groups"],
        ),
    ],
)
def test_wrong_arguments_of_pruners_hide_nothing(definition, messages):
    found = of_instance(definition)
    assert len(found) == len(messages), found
    assert all(any(line.startswith(message) for line in found) for message in messages), found


@pytest.mark.parametrize(
    ("section", "definition", "messages"),
    [
        (
            "regularizers",
            LASSO
            | {
                "threshold_criteria": "x",
                "reg_regims": {"fc.weight": [1, "2D"], "fc.bias": [-1, "4D"], "q": [1, "4D"]},
            },
            [
                "threshold_criteria: must be",
                "reg_regims.fc.weight: 2D needs",
                "reg_regims.fc.bias[0]: must be",
                "reg_regims.q: the name 'q'",
            ],
        ),
        (
            "regularizers",
            {"class": "L0Regularizer", "weights": ["q"], "strength": 1, "target_macs": 0.5, "stretch": [0.1, 1.1]},
            ["weights[0]: the name 'q'", "target_macs: give exactly one of", "stretch: must reach from below 0"],
        ),
        (
            "regularizers",
            {"class": "GroupVarianceRegularizer", "reg_regims": {"fc.weight": [1, "Rows"], "fc.bias": [1, "Channels"]}},
            [
                "reg_regims.fc.weight[1]: must be Channels",
                "reg_regims.fc.bias: Channels needs a weight of 2 dimensions",
            ],
        ),
        (
            "lr_schedulers",
            {"class": "MultiStepMultiGammaLR", "milestones": [5, 3], "gammas": [0.1], "foo": 1},
            [
                "foo: there is no",
                "gammas: there are 2 milestones but 1 gammas",
                "milestones: the milestones [5, 3] must",
            ],
        ),
        (
            "lr_schedulers",
            {"class": "OneCycleLR", "max_lr": 0.1, "foo": 1},
            ["foo: there is no such argument", "OneCycleLR refuses its arguments: You must define either total_steps"],
        ),
        (
            "extensions",
            {"class": "KnowledgeDistillationPolicy", "temperature": 0, "distill_weight": 0, "student_weight": 0},
            [
                "the argument `arch` is missing",
                "temperature: must be",
                "a teacher needs trained weights",
                "distill_weight: is 0",
            ],
        ),
    ],
)
def test_wrong_arguments_of_others_hide_nothing(section, definition, messages):
    found = of_instance(definition, section)
    assert len(found) == len(messages), found
    assert all(any(line.startswith(message) for line in found) for message in messages), found


@pytest.mark.parametrize(
    ("section", "definition"),
    [
        # an ill-typed argument, an unknown one that may be it, and one that is missing: no default stands in for them
        ("pruners", RANKED | {"group_type": "x", "weights": ["norm.weight"]}),
        ("pruners", RANKED | {"group_typ": "2D", "weights": ["norm.weight"]}),
        ("pruners", {"class": "NMPruner", "weights": ["fc.weight"], "n": 6, "mm": 8}),
        ("pruners", {"class": "SplicingPruner", "sensitivities": {"fc.*": 1}, "low_thresh_mult": 1.1}),
        ("regularizers", {"class": "L0Regularizer", "weights": ["conv1.weight"], "target_sparsity": 7}),
        ("regularizers", {"class": "L0Regularizer", "weights": ["conv1.weight"], "target_sparsty": 0.5}),
        ("extensions", {"class": "KnowledgeDistillationPolicy", "arch": "a", "pretrained": 1}),
        # the leader is not known
        ("pruners", RANKED | {"group_dependency": "Leader", "weights": ["nope", "conv1.weight", "conv2.weight"]}),
        # the full name keeps its parameter from the pattern, though its value is wrong
        ("regularizers", LASSO | {"reg_regims": {"fc.weight": ["x", "4D"], "*c.weight": [1, "2D"]}}),
        # the misspelled name may be that of a parameter that the pattern fits
        ("regularizers", LASSO | {"reg_regims": {"fc.weigt": [1, "4D"], "*c.weight": [1, "2D"]}}),
        # neither of two contradicting patterns
        ("regularizers", LASSO | {"reg_regims": {"conv*.weight": [1, "4D"], "*1.weight": [2, "4D"]}}),
        # lists other than of names are right as a whole or not at all
        ("lr_schedulers", {"class": "MultiStepMultiGammaLR", "milestones": [3, "x", 2], "gammas": [0.1, 0.2]}),
    ],
)
def test_what_depends_on_a_mistake_is_not_told(section, definition):
    found = of_instance(definition, section)
    assert len(found) == 1, found


@pytest.mark.parametrize(
    ("definition", "messages"),
    [
        (
            AGP | {"class": "AutomatedGradualPrunr", "final_sparsity": 7},
            ["class: there is no class", "final_sparsity: must be"],
        ),
        (
            AGP | {"class": "AutomatedGradualPrunr", "final_sparsity": 0.1},
            ["class: there is no", "final_sparsity: 0.1 must be"],
        ),
        (AGP | {"class": "L1Regularizer", "foo": 1}, ["class: L1Regularizer belongs in regularizers"]),
        (
            AGP
            | {
                "class": "Squeezer",
                "weights": ["nope", "fc.weight"],
                "final_sparsity": "x",
                "group_type": "Q",
                "foo": 1,
            },
            [
                "class: there is no class Squeezer",
                "weights[0]: the name 'nope'",
                "final_sparsity: must be",
                "group_type: must be",
            ],
        ),
        ({"weights": ["nope"]}, ["`class` is missing", "weights[0]: the name 'nope' fits no parameter"]),
        (
            {"class": 3, "levels": {"q": 2}},
            ["class: must be the name", "levels.q: must be a number", "levels.q: the name 'q'"],
        ),
    ],
)
def test_arguments_of_unknown_classes_are_checked(definition, messages):
    found = of_instance(definition)
    assert all(any(line.startswith(message) for line in found) for message in messages), found
    assert len(found) == len(messages) or definition["class"] == "L1Regularizer", found


def test_names_are_checked_whatever_regularizer_is_meant():
    """One takes numbers, the other pairs: what both say against an entry is wrong, what one says is not told."""
    found = of_instance(
        {"class": "Squeezer", "reg_regims": {"conv9.weight": [0.1, "3D"], "fc.weight": 3}}, "regularizers"
    )
    assert [line.split(":")[0] for line in found] == ["class", "reg_regims.conv9.weight"]


def test_misspelled_arguments_are_checked_as_what_they_mean():
    assert of_instance(AGP | {"final_sparsitty": 7, "final_sparsity": 0.5})[1].startswith(
        "final_sparsitty: must be a number"
    )
    definition = {key: value for key, value in AGP.items() if key != "final_sparsity"} | {"final_sparsitty": 0.5}
    assert len(of_instance(definition)) == 1


def test_shapes_without_elements_are_refused_where_structures_are_needed():
    for definition in (RANKED | {"weights": ["none"]}, {"class": "NMPruner", "weights": ["none"]}):
        assert "none of shape (0, 3) has no elements" in of_instance(definition)[0]
    regims = {"reg_regims": {"none": [0.1, "Channels"]}}
    for section, name in (("pruners", "StructureParameterPruner"), ("regularizers", "GroupLassoRegularizer")):
        assert of_instance({"class": name, **regims}, section) == [
            "reg_regims.none: none of shape (0, 3) has no elements"
        ]


def test_transposed_convolutions_count_their_own_way():
    assert of_instance({"class": "NMPruner", "weights": ["up.weight"]}) == []
    assert of_instance(RANKED | {"weights": ["up.weight"], "group_size": 6}) == []


def test_coupled_channels_take_no_sizes_and_no_leader():
    found = of_instance(RANKED | {"group_type": "Coupled", "group_size": 2, "group_dependency": "Leader"})
    assert found == [
        "group_size: Coupled ranks each channel by itself: leave group_size out",
        "group_dependency: Coupled ranks what belongs together as one: leave Leader out",
    ]


def test_without_a_model_what_needs_none_is_checked():
    assert of_instance(GRADUAL | {"weights": ["any"]}, model=None) == [FALLING]


def test_a_check_that_fails_on_a_part_of_the_arguments_ends():
    """Plugins that were written for complete arguments."""

    @register("pruners")
    class Picky(Pruner):
        def __init__(self, weights: list[str], level: float = 0.5) -> None: ...

        @classmethod
        def problems(cls, args, shapes):
            yield "", "first"
            if args["level"] > 1:
                yield "level", "second"

    assert of_instance({"class": "Picky", "weights": ["a"], "level": 2}) == ["first", "level: second"]
    assert of_instance({"class": "Picky", "weights": ["a"], "level": "x"}) == [
        "level: must be a number, not the text 'x'",
        "first",
    ]


def test_weights_without_gradients_are_refused_where_gradients_rank():
    frozen = Net()
    frozen.conv1.weight.requires_grad_(False)
    message = "weights[0]: conv1.weight is frozen (requires_grad is False): it gets no gradient"
    rigl = {"class": "RigLPruner", "weights": ["conv1.weight", "fc.weight"], "sparsity": 0.5}
    gradient = {"class": "GradientRankedFilterPruner", "weights": ["conv1.weight"], "desired_sparsity": 0.5}
    assert of_instance(rigl, model=frozen) == of_instance(gradient, model=frozen) == [message]
    assert of_instance(rigl) == of_instance(gradient) == []
    with pytest.raises(ValueError, match="conv1.weight is frozen"):
        RigLPruner(["conv1.weight"], 0.5).bind(frozen)
