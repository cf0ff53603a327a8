"""Sharded parameters (`fully_shard`): the masks of one process, whatever lies where."""

import pytest
import torch

from .test_every_class import CLASSES, KINDS, plus, schedule

TRIED = torch.__version__.startswith("2.14")


@pytest.fixture(scope="module", autouse=True)
def _torch_averages(pair):
    """Leave out what an older torch cannot do: on CPUs 2.6 fails in `fully_shard`, 2.7 and 2.8 add gradients up."""
    averages = [answer.get("averages", False) for answer in pair.do("sharding", "averages")]
    if not all(averages):
        assert not TRIED
        pytest.skip("this torch does not average gradients of shards on CPUs")


RISING = {"initial_sparsity": 0.1, "final_sparsity": 0.6}
ALL = ["conv1.weight", "conv2.weight", "conv3.weight", "fc1.weight", "fc1.bias", "fc2.weight"]
SOFT = {"mask_on_forward_only": True, "use_double_copies": True, "mini_batch_pruning_frequency": 2, "keep_mask": True}
FILTERS = ["conv1.weight", "conv2.weight", "fc1.weight"]
L1_FILTERS = "L1RankedStructureParameterPruner"
PLANS = {
    "AGP": schedule("pruners", "AutomatedGradualPruner", weights=ALL, **RISING),
    "level": schedule("pruners", "SparsityLevelParameterPruner", levels={"conv*.weight": 0.5, "fc2.weight": 0.3}),
    "magnitude": schedule("pruners", "MagnitudeParameterPruner", thresholds={"conv*.weight": 0.05, "fc1.bias": 0.1}),
    "sensitivity": schedule("pruners", "SensitivityPruner", sensitivities={"conv*.weight": 0.8, "fc2.weight": 0.5}),
    "splicing": schedule("pruners", "SplicingPruner", SOFT, sensitivities={"conv*.weight": 0.8, "fc2.weight": 0.5}),
    "Baidu": schedule("pruners", "BaiduRNNPruner", weights=ALL),
    "global": schedule("pruners", "GlobalMagnitudePruner_AGP", weights=ALL, **RISING),
    "global, of what lives": schedule(
        "pruners", "GlobalMagnitudePruner", weights=ALL, desired_sparsity=0.2, of="alive", when={"epochs": [0, 1, 2, 3]}
    ),
    "N:M": schedule("pruners", "NMPruner", weights=["fc2.weight"]),
    "RigL": schedule("pruners", "RigLPruner", weights=ALL),
    "SET": schedule("pruners", "SETPruner", weights=ALL),
    "filters": schedule("pruners", "L1RankedStructureParameterPruner_AGP", weights=FILTERS, **RISING),
    "filters, L2": schedule("pruners", "L2RankedStructureParameterPruner", weights=FILTERS),
    "channels": schedule("pruners", L1_FILTERS, weights=["conv2.weight", "conv3.weight"], group_type="Channels"),
    "kernels": schedule("pruners", L1_FILTERS, weights=["conv2.weight"], group_type="2D"),
    "blocks": schedule(
        "pruners", L1_FILTERS, weights=["fc1.weight"], group_type="Blocks", kwargs={"block_shape": [4, 7]}
    ),
    "coupled": schedule("pruners", L1_FILTERS, weights=FILTERS, group_type="Coupled"),
    "structures below a threshold": schedule(
        "pruners",
        "StructureParameterPruner",
        reg_regims={"conv1.weight": [0.25, "Filters"], "fc1.weight": [0.3, "Rows"]},
    ),
    "chance": schedule("pruners", "RandomRankedFilterPruner", weights=FILTERS),
    "dropped filters": schedule("pruners", "BernoulliFilterPruner", SOFT, weights=FILTERS),
    "a level by chance": schedule(
        "pruners", "RandomLevelStructureParameterPruner", weights=FILTERS, group_type="Filters"
    ),
    "rewound": plus(
        schedule("pruners", "AutomatedGradualPruner", weights=["conv1.weight"], **RISING),
        schedule("extensions", "Rewinder", when={"epochs": [3]}),
    ),
    "mean activations": schedule("pruners", "ActivationMeanRankedFilterPruner", weights=FILTERS),
    "activations": schedule("pruners", "ActivationAPoZRankedFilterPruner", weights=FILTERS),
    "gradients": schedule("pruners", "GradientRankedFilterPruner", weights=FILTERS),
    "L1": schedule(
        "regularizers", "L1Regularizer", {"keep_mask": True}, threshold_criteria="Max", reg_regims={"conv*": 0.05}
    ),
    "L1, proximal": schedule(
        "regularizers",
        "L1Regularizer",
        {"mode": "proximal", "keep_mask": True},
        threshold_criteria=None,
        reg_regims={"*.weight": 1.0},
    ),
    "L2": schedule("regularizers", "L2Regularizer", threshold_criteria=None, reg_regims={"*.weight": 0.5}),
    "group lasso": schedule(
        "regularizers",
        "GroupLassoRegularizer",
        {"keep_mask": True},
        reg_regims={
            "conv1.weight": [0.15, "Filters"],
            "conv3.weight": [0.1, "Channels+4D"],
            "fc1.weight": [0.15, "Coupled"],
        },
    ),
    "group lasso, proximal": schedule(
        "regularizers",
        "GroupLassoRegularizer",
        {"keep_mask": True, "mode": "proximal"},
        threshold_criteria=None,
        reg_regims={"conv1.weight": [20, "Filters"], "conv2.weight": [20, "Coupled"]},
    ),
    "gates": schedule("regularizers", "L0Regularizer", weights=["conv1.weight", "fc1.weight"]),
    "gates for examples": schedule("regularizers", "L0Regularizer", weights=["conv1.weight"], sampling="example"),
    "warm-up": schedule("extensions", "WarmUp"),
    "average": schedule("extensions", "WeightAverage"),
}
NOTHING = {"L2", "warm-up", "average"}


def check_as_one(answers, alone, name):
    """Check that ranks have the masks of one process, placed as the parameters are, and nearly its weights."""
    for answer in (*answers, *alone):
        assert "error" not in answer, answer["error"]
    (one,) = alone
    for answer in answers:
        assert not answer["leaks"] and not answer["placed"]
        # Nothing is gathered but by fully_shard itself, for its forward passes.
        assert not [kind for kind in answer.get("sent", ()) if "functional" in kind and "gather" in kind]
        assert answer["masks"] == one["masks"]
        for weight, values in one["weights"].items():
            assert max(abs(a - b) for a, b in zip(values, answer["weights"][weight], strict=True)) < 1e-4, weight
    if name not in NOTHING:
        assert one["masks"][-1]


REFUSED = {"FMReconstructionChannelPruner", "GroupVarianceRegularizer"}
REFUSED |= {"GlobalStructurePruner", "GlobalStructurePruner_AGP"}
REFUSED |= {"Thinner", "StructureRemover", "FilterRemover", "ChannelRemover"}
NO_WEIGHTS = {"KnowledgeDistillationPolicy"}


def test_every_class_is_tried_or_refused():
    """A new class is to be given a plan here; one that rises by AGP is tried with one that does not, or in turn."""
    instances = [part for plan in PLANS.values() for section in KINDS for part in plan.get(section, {}).values()]
    tried = {part["class"].removesuffix("_AGP") for part in instances}
    assert {name for _, name in CLASSES if name.removesuffix("_AGP") not in tried} == REFUSED | NO_WEIGHTS


SHORT = {"AGP", "splicing", "global", "N:M", "RigL", "filters", "blocks", "coupled", "activations", "gradients"}
SHORT |= {"dropped filters", "L1", "L1, proximal", "group lasso", "gates"}
SAME_DRAWS = {name: plan for name, plan in PLANS.items() if name != "gates for examples"}


def _of(name):
    """A plan; those whose parts others have too are for the long form."""
    return pytest.param(name, marks=[] if name in SHORT else pytest.mark.slow)


@pytest.mark.parametrize("name", map(_of, SAME_DRAWS))
def test_masks_are_those_of_one_process(pair, alone, name):
    check_as_one(
        pair.do("sharding", "train", schedule=PLANS[name]), alone.do("sharding", "train", schedule=PLANS[name]), name
    )


def test_gates_for_examples(pair):
    """Each rank draws for its own examples."""
    for answer in pair.do("sharding", "train", schedule=PLANS["gates for examples"]):
        assert "error" not in answer, answer["error"]
        assert not answer["leaks"] and answer["masks"][-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME_DRAWS)
def test_on_three_and_four_processes(several, alone, name):
    check_as_one(
        several.do("sharding", "train", schedule=PLANS[name]), alone.do("sharding", "train", schedule=PLANS[name]), name
    )


def test_the_gathered_state_thins_and_is_sharded_again(pair):
    for answer in pair.do("sharding", "gathered", schedule=PLANS["filters"]):
        assert answer["shapes"]["conv1.weight"] == [4, 3, 3, 3] and answer["shapes"]["fc1.weight"][0] == 5
        assert answer["difference"] < 1e-5 and answer["sharded"] < 1e-6
        assert "is sharded over processes (fully_shard): thin before sharding, or gather" in answer["refusal"]


@pytest.mark.parametrize("name", ["filters", "gates", "splicing", "RigL", "activations"])
def test_checkpoints_of_torch_distributed(pair, tmp_path, name):
    whole = pair.do("sharding", "save", schedule=PLANS[name], path=str(tmp_path))
    rest = pair.do("sharding", "load", schedule=PLANS[name], path=str(tmp_path))
    assert rest == whole


@pytest.mark.parametrize("name", ["AGP", "splicing"])
def test_a_gathered_state_is_stored_by_one_process(pair, tmp_path, name):
    answers = pair.do("sharding", "one_file", schedule=PLANS[name], path=str(tmp_path / "state.pt"), whole=True)
    for answer in answers:
        assert answer["same"] and all(answer["same"])


def test_one_processs_part_of_a_state_is_refused_by_all(pair, tmp_path):
    answers = pair.do("sharding", "one_file", schedule=PLANS["AGP"], path=str(tmp_path / "state.pt"), whole=False)
    for answer in answers:
        assert "holds one process's part of sharded masks" in answer["error"]
        assert "load_distributed" in answer["error"]


@pytest.mark.slow
def test_checkpoints_go_on_with_other_numbers(pair, several, tmp_path):
    for name in ("filters", "gates", "splicing", "activations"):
        whole = pair.do("sharding", "save", schedule=PLANS[name], path=str(tmp_path / name))
        check_as_one(several.do("sharding", "load", schedule=PLANS[name], path=str(tmp_path / name)), whole[:1], name)


def test_a_target_out_of_reach_is_refused_as_in_one_process(pair, alone):
    plan = schedule("regularizers", "L0Regularizer", weights=["conv1.weight"], target_sparsity=0.8)
    (one,) = alone.do("sharding", "train", schedule=plan)
    assert "the target is out of reach: with one channel left in each gated layer the network is at" in one["error"]
    assert pair.do("sharding", "train", schedule=plan) == [one, one]


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (schedule("pruners", "FMReconstructionChannelPruner"), "FMReconstructionChannelPruner"),
        (schedule("regularizers", "GroupVarianceRegularizer"), "GroupVarianceRegularizer"),
        (schedule("pruners", "GlobalStructurePruner"), "GlobalStructurePruner"),
        (schedule("pruners", L1_FILTERS, {"fold_batchnorm": True}), "fold_batchnorm"),
    ],
)
def test_what_needs_whole_weights_is_refused(pair, plan, text):
    for answer in pair.do("sharding", "train", schedule=plan):
        assert f"{text} needs whole weights" in answer["error"]
