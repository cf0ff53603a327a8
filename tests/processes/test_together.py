"""What ranks decide together: errors on all of them, groups of their own, wrappers, going on with other numbers."""

import pytest
import torch
from torch import nn

from potstill.compression.processes.digests import digests

from .pool import Pool
from .test_every_class import SOFT, VARIANTS, check_same, class_schedule, plus, schedule


@pytest.mark.parametrize("where", ["on_epoch_begin", "finish", "thin", "state_dict"])
def test_a_difference_is_an_error_on_all_ranks(pair, where):
    first, second = pair.do("meeting", "differ", where=where)
    assert first == second
    name = "0.weight by it" if where == "on_epoch_begin" else "4.weight by mine"
    assert first.startswith(f"RanksDiffer: {where}")
    assert f"ranks differ in the mask of {name}.0" in first
    assert "rank 0 has another one than rank 1" in first


@pytest.mark.parametrize(
    ("kind", "what"),
    [("class", "class"), ("strength", "arguments.reg_regims.0.weight"), ("times", "when"), ("policy", "class")],
)
def test_other_schedules_are_an_error_before_anything_acts(pair, kind, what):
    first, second = pair.do("meeting", "plans", kind=kind)
    assert first == second
    assert first.startswith(f"RanksDiffer: on_epoch_begin, epoch 0: ranks differ in policy it.{what}"), first


def test_ranks_at_different_calls_are_an_error(pair):
    first, second = pair.do("meeting", "places")
    assert first == second
    assert "rank 0 is at on_epoch_begin, epoch 1, rank 1 is at finish(): all ranks need as many epochs" in first


def test_other_states_are_an_error(pair):
    first, second = pair.do("meeting", "states")
    assert first == second
    assert first.startswith("RanksDiffer: load_state_dict(): ranks differ in the state's acted")


@pytest.mark.parametrize("given", ["model", "wrapper"])
def test_uneven_inputs_are_refused(pair, given):
    """In the first forward pass, so on all ranks; behind it nothing is left of what looked."""
    for error, steps, hooks in pair.do("meeting", "joined", given=given):
        assert error.startswith("RuntimeError: DistributedDataParallel.join() does not go with a scheduler"), error
        assert (steps, hooks) == (0, 0)


def test_ranks_of_groups_of_their_own_may_differ(pair):
    assert pair.do("meeting", "apart") == [[4, 3, 3, 3]] * 2
    assert all("this process is not in it" in answer for answer in pair.do("meeting", "stranger"))


def test_rank_0_says_what_norms_have_seen(pair):
    first, second = pair.do("meeting", "statistics_of_norms")
    assert first == second
    assert first[1] == [5, 3, 3, 3]


def test_wrappers_are_taken_off(pair, alone):
    counts = alone.do("meeting", "alone")[0]
    for found in pair.do("meeting", "wrapped"):
        for kind, (same_model, names, seen, shape) in found.items():
            assert same_model, kind
            assert (names, seen, shape) == (["0.weight", "0.bias"], counts, [4, 3, 3, 3])


MIDDLE = {
    "activations": schedule("pruners", "ActivationAPoZRankedFilterPruner_AGP"),
    "gradients": schedule("pruners", "GradientRankedFilterPruner_AGP", {"mini_batch_pruning_frequency": 2}),
    "samples": schedule("pruners", "FMReconstructionChannelPruner", when={"epochs": [3]}),
    "gates": schedule("regularizers", "L0Regularizer"),
    "gates for examples": VARIANTS["gates for examples"],
    "regrowth": schedule("pruners", "RigLPruner"),
    "dense copies": schedule("pruners", "SplicingPruner", SOFT),
}

GATES_ALONE = schedule("regularizers", "L0Regularizer", weights=["conv1.weight"], target_sparsity=0.05)


@pytest.mark.parametrize("name", MIDDLE)
def test_a_run_that_goes_on_ends_as_one_that_did_not_stop(pair, tmp_path, name):
    whole = check_same(pair.do("training", "train", schedule=MIDDLE[name], save=str(tmp_path / "states.pt")))
    rest = check_same(pair.do("training", "train", schedule=MIDDLE[name], load=str(tmp_path / "states.pt")))
    assert rest["story"] == whole["story"][-len(rest["story"]) :]


def test_it_goes_on_with_other_numbers(pair, alone, tmp_path):
    """From 2 processes to 1: the masks of then, and all statistics."""
    plan = plus(MIDDLE["activations"], GATES_ALONE)
    saved = check_same(pair.do("training", "train", schedule=plan, save=str(tmp_path / "states.pt")))
    rest = check_same(alone.do("training", "train", schedule=plan, load=str(tmp_path / "states.pt")))
    middle = saved["story"][2]
    assert rest["story"][0]["masks"] == middle["masks"]
    state = torch.load(tmp_path / "states.pt", weights_only=True)["scheduler"]
    assert len(state["ranks"]) == 2


@pytest.mark.slow
def test_from_two_to_one_to_three(pair, alone, several, tmp_path):
    for name, plan in MIDDLE.items():
        check_same(pair.do("training", "train", schedule=plan, save=str(tmp_path / f"{name}2")))
        check_same(alone.do("training", "train", schedule=plan, load=str(tmp_path / f"{name}2")))
        check_same(alone.do("training", "train", schedule=plan, save=str(tmp_path / f"{name}1")))
        check_same(several.do("training", "train", schedule=plan, load=str(tmp_path / f"{name}1")))
        check_same(several.do("training", "train", schedule=plan, load=str(tmp_path / f"{name}2")))


def test_a_mistake_on_the_command_line_is_said_once(starter, tmp_path):
    arguments = ["-a", "simplenet_mnist", "--dataset", "digits", "--device", "cpu", "-o", str(tmp_path), "-b", "3"]
    pool = Pool(starter, 2, backend="")
    first, second = pool.do("meeting", "command", arguments=arguments)
    pool.stop()
    assert first[0] == second[0] == 2
    mistake = "2 processes share each batch: it must have 4 images at least, not 3"
    assert (first[1] + second[1]).count(mistake) == 1 and "Traceback" not in first[1] + second[1]


HALF = schedule("pruners", "L1RankedStructureParameterPruner", when={"epochs": [1]})


def test_thinning_in_the_middle_says_what_to_do(pair):
    answer = check_same(pair.do("training", "train", schedule=HALF))
    assert any("make DistributedDataParallel(model) anew before the next step" in text for text in answer["heard"])
    answer = check_same(pair.do("training", "train", schedule=HALF, how={"given": "wrapper"}))
    assert not any("DistributedDataParallel" in text for text in answer["heard"])


def test_thinning_in_the_middle_goes_on_with_gradient_accumulation(pair):
    plan, how = class_schedule("extensions", "Thinner"), {"given": "wrapper", "parts": 2, "hooks": True}
    assert check_same(pair.do("training", "train", schedule=plan, how=how))["filters"] == 4


def test_a_rank_that_dies_is_an_error_on_the_others(pair):
    with pytest.raises(AssertionError, match=r"ranks \[1\] gave no answer") as died:
        pair.do("meeting", "dies")
    assert "RuntimeError" in str(died.value) and "timed out" not in str(died.value).lower(), died.value


def test_a_rank_that_does_not_come_is_an_error(pair):
    first, _ = pair.do("meeting", "late")
    pair.stop()  # these ranks count groups differently now
    assert "timed out" in first.lower() or "timeout" in first.lower()


def test_accelerate_saves_and_loads_a_scheduler(pair, tmp_path):
    pytest.importorskip("accelerate")
    first, second = pair.do("meeting", "accelerated", path=str(tmp_path))
    assert "error" not in first, first
    assert first == second
    assert first[0] == first[1]
    assert first[0][1] == ["0.weight", "0.bias"]
    assert first[0][0].count(0.0) > 0


def test_digests_tell_places_and_types_apart():
    ones = torch.tensor([0.0, 1.0, 1.0])
    every = [ones, ones.flip(0), ones.double(), ones.bool(), ones.view(3, 1), -ones, torch.cat([ones, ones])]
    assert len({digests({"x": tensor})["x"] for tensor in every}) == len(every)
    assert digests({"x": {"a": [1, ones]}}) == digests({"x": {"a": [1, ones.clone()]}})
    assert digests({"x": ones})["x"] == digests({"x": nn.Parameter(ones.as_strided((3,), (1,)))})["x"]
