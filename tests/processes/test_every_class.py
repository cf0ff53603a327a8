"""Every pruner, regularizer and policy: ranks with data of their own end alike. New classes are found by themselves."""

import inspect

import pytest

from potstill.compression import registered

FILTERS = ["conv1.weight", "conv2.weight", "fc1.weight"]
BETWEEN = {"starting_epoch": 1, "ending_epoch": 4}
KINDS = {"pruners": "pruner", "regularizers": "regularizer", "extensions": "extension"}
ARGS = {
    "weights": FILTERS,
    "desired_sparsity": 0.5,
    "initial_sparsity": 0.1,
    "final_sparsity": 0.5,
    "levels": {"conv1.weight": 0.5, "fc1.weight": 0.3},
    "thresholds": {"conv1.weight": 0.1, "fc1.weight": 0.1},
    "sensitivities": {"conv1.weight": 0.8, "fc1.weight": 0.8},
    "q": 0.2,
    "ramp_epoch_offset": 1,
    "ramp_slope_mult": 2,
    "sparsity_range": [0.2, 0.6],
    "sparsity": 0.5,
    "low_thresh_mult": 0.9,
    "hi_thresh_mult": 1.1,
}
"""What required arguments are by name: a class whose own are not among these gives them in OF_CLASS."""
OF_CLASS = {
    "NMPruner": {"weights": ["conv2.weight", "fc1.weight"]},
    "StructureParameterPruner": {"reg_regims": {"conv1.weight": [0.25, "Filters"], "fc1.weight": [0.3, "Rows"]}},
    "FMReconstructionChannelPruner": {"weights": ["conv2.weight", "fc1.weight"]},
    "GroupLassoRegularizer": {
        "reg_regims": {"conv1.weight": [0.1, "Filters"], "conv2.weight": [0.05, "Coupled"]},
        "threshold_criteria": "Mean_Abs",
    },
    "GroupVarianceRegularizer": {"reg_regims": {"conv2.weight": [0.01, "Channels"]}},
    "L0Regularizer": {"target_sparsity": 0.4, "droprate_init": 0.05},
    "L1Regularizer": {"reg_regims": {"conv1.weight": 0.05, "fc1.weight": 0.05}, "threshold_criteria": "Max"},
    "L2Regularizer": {"reg_regims": {"conv1.weight": 0.05, "fc1.weight": 0.05}, "threshold_criteria": "Max"},
    "KnowledgeDistillationPolicy": {"arch": "simplenet_mnist", "checkpoint": "none"},
}
LEAVES_ALONE = {"GroupVarianceRegularizer", "KnowledgeDistillationPolicy", "Rewinder", "WarmUp", "WeightAverage"}
CLASSES = [(section, name) for section in KINDS for name in registered(section)]


def schedule(section, name, policy_args=None, when=BETWEEN, **args):
    """A schedule of one instance."""
    cls = registered(section)[name]
    parameters = [p for p in inspect.signature(cls).parameters.values() if p.name != "model"]
    required = [p.name for p in parameters if p.default is p.empty]
    given = {key: ARGS[key] for key in required if key in ARGS} | OF_CLASS.get(name, {}) | args
    missing = set(required) - given.keys()
    assert not missing, f"{name}: say in OF_CLASS what to give for {', '.join(missing)}"
    named = {"instance_name": "it", **({"args": policy_args} if policy_args else {})}
    return {"version": 1, section: {"it": {"class": name, **given}}, "policies": [{KINDS[section]: named, **when}]}


def plus(first, second):
    """Both schedules in one."""
    merged = {**first, "policies": list(first["policies"])}
    for section, kind in KINDS.items():
        instances = {f"other_{name}": value for name, value in second.get(section, {}).items()}
        if instances:
            merged[section] = {**first.get(section, {}), **instances}
        for policy in second["policies"]:
            if kind in policy:
                named = {**policy[kind], "instance_name": f"other_{policy[kind]['instance_name']}"}
                merged["policies"].append({**policy, kind: named})
    return merged


def check_same(answers):
    """Check that all ranks answered the same, and that what is masked was 0 throughout."""
    errors = [answer.get("error") for answer in answers]
    assert errors == [None] * len(answers)
    for answer in answers:
        assert not answer["leaks"]
        for mine, first in zip(answer["story"], answers[0]["story"], strict=True):
            assert mine == first
        assert answer["removed"] == answers[0]["removed"]
    return answers[0]


def class_schedule(section, name):
    """A schedule in which a class decides something."""
    keep = {"keep_mask": True} if "threshold_criteria" in OF_CLASS.get(name, {}) else None
    plan = schedule(section, name, keep)
    if registered(section)[name].__name__ == "Thinner":
        return plus(schedule("pruners", "L1RankedStructureParameterPruner", when={"epochs": [1]}), plan)
    return plan


@pytest.mark.parametrize(("section", "name"), CLASSES)
def test_all_ranks_end_alike(pair, section, name):
    answer = check_same(pair.do("training", "train", schedule=class_schedule(section, name), how={"given": "wrapper"}))
    if name not in LEAVES_ALONE:
        assert answer["removed"] or max(answer["zeros"].values()) >= 0.2, "nothing was decided"


def test_a_class_that_draws_by_itself_does_not_pass(pair):
    answers = pair.do("training", "careless")
    assert all("ranks differ in the mask of conv1.weight by it" in answer["error"] for answer in answers)
    with pytest.raises(AssertionError):
        check_same(answers)


SOFT = {"mask_on_forward_only": True, "use_double_copies": True, "mini_batch_pruning_frequency": 2, "keep_mask": True}
VARIANTS = {
    "soft masks": schedule("pruners", "BernoulliFilterPruner", SOFT),
    "folded norms": schedule("pruners", "L1RankedStructureParameterPruner", {"fold_batchnorm": True}),
    "coupled": schedule("pruners", "L1RankedStructureParameterPruner_AGP", group_type="Coupled"),
    "leader": schedule("pruners", "ActivationMeanRankedFilterPruner", weights=FILTERS[:2], group_dependency="Leader"),
    "each minibatch": schedule("pruners", "GradientRankedFilterPruner_AGP", {"mini_batch_pruning_frequency": 1}),
    "gates for examples": schedule("regularizers", "L0Regularizer", sampling="example"),
    "gates for multiply-adds": schedule("regularizers", "L0Regularizer", target_sparsity=None, target_macs=0.5),
    "proximal": schedule("regularizers", "GroupLassoRegularizer", {"mode": "proximal", "keep_mask": True}),
    "gates and activations": plus(
        schedule("regularizers", "L0Regularizer", weights=["conv1.weight"]),
        schedule("pruners", "ActivationAPoZRankedFilterPruner", weights=["fc1.weight"]),
    ),
    "plateau": {
        "version": 1,
        "lr_schedulers": {"it": {"class": "ReduceLROnPlateau", "patience": 0, "factor": 0.1}},
        "policies": [{"lr_scheduler": {"instance_name": "it"}, "starting_epoch": 0, "ending_epoch": 4}],
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(pair, name):
    check_same(pair.do("training", "train", schedule=VARIANTS[name]))


GATES, RIGL = schedule("regularizers", "L0Regularizer"), schedule("pruners", "RigLPruner", when={"epochs": [1, 2, 3]})
LOOPS = {
    "hooks": {"hooks": True},
    "static graph": {"ddp": {"static_graph": True}},
    "views of buckets": {"ddp": {"gradient_as_bucket_view": True}},
    "accumulation": {"parts": 2, "hooks": True},
    "bfloat16": {"amp": True},
    "loss scaling": {"scaler": True},
    "unused parameters": {"ddp": {"find_unused_parameters": True, "broadcast_buffers": False}},
    "compiled": {"compile": True, "given": "wrapper", "thin": False},
}


@pytest.mark.parametrize("loop", LOOPS)
def test_loops(pair, loop):
    penalty = schedule("regularizers", "L1Regularizer", {"mode": "loss"}, threshold_criteria=None)
    gradients = schedule("pruners", "GradientRankedFilterPruner", weights=FILTERS[:1])
    for plan in (plus(GATES, penalty), plus(RIGL, gradients)):
        check_same(pair.do("training", "train", schedule=plan, how=LOOPS[loop]))


@pytest.mark.slow
@pytest.mark.parametrize(("section", "name"), CLASSES)
def test_three_and_four_ranks(several, section, name):
    check_same(several.do("training", "train", schedule=class_schedule(section, name), how={"given": "wrapper"}))
