"""A schedule means the same on many processes as on one: means over ranks, gates, targets; and what is sent for it."""

import pytest

from .test_every_class import schedule

GATES = {"weights": ["conv1.weight", "fc1.weight"], "droprate_init": 0.05, "gate_lr": 0.4}
EACH = {"epochs": [1, 2, 3]}
PLANS = {
    "elements": schedule("pruners", "AutomatedGradualPruner"),
    "activations": schedule("pruners", "ActivationAPoZRankedFilterPruner", when=EACH),
    "mean activations": schedule("pruners", "ActivationMeanRankedFilterPruner", when=EACH),
    "gradients": schedule("pruners", "GradientRankedFilterPruner", when=EACH),
    "regrowth": schedule("pruners", "RigLPruner", when=EACH),
    "group lasso": schedule("regularizers", "GroupLassoRegularizer", {"keep_mask": True}),
    "gates": schedule("regularizers", "L0Regularizer", **GATES, target_sparsity=None, strength=2.0),
    "gates with a target": schedule("regularizers", "L0Regularizer", **{**GATES, "target_sparsity": 0.3}),
}
DIGEST = {"epoch: 16": 3}
RANKING = {"epoch: 248": 3}  # 8 x (8 + 8 + 12 filters + 3 weights)
GRADIENTS = {"step: 80": 9, "epoch: 8": 1, "epoch: 5": 1}  # 4 x (8 + 12 gates), in 3 epochs; the seed, its size before
SENT = {"activations": RANKING, "mean activations": RANKING, "gradients": RANKING}
SENT |= {"gates": GRADIENTS, "gates with a target": GRADIENTS}


def check(answers, alone, name):
    """Check that all have the masks of one process, and nearly its weights."""
    (one,) = alone
    for answer in answers:
        assert "error" not in answer, answer["error"]
        assert answer["masks"] == one["masks"]
        assert one["masks"] or name == "gates"  # whose strength closes none in so few steps
        for weight, values in one["weights"].items():
            assert max(abs(a - b) for a, b in zip(values, answer["weights"][weight], strict=True)) < 1e-4, weight


@pytest.mark.parametrize("name", PLANS)
def test_two_ranks_with_half_a_batch_each_are_one_process(pair, alone, name):
    answers = pair.do("halves", "train", schedule=PLANS[name])
    check(answers, alone.do("halves", "train", schedule=PLANS[name]), name)
    assert answers[0]["sent"] == {**DIGEST, **SENT.get(name, {})}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_three_and_four_ranks_are_one_process(several, alone, name):
    check(several.do("halves", "train", schedule=PLANS[name]), alone.do("halves", "train", schedule=PLANS[name]), name)
