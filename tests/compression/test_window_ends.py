"""Windows end, also where the loop leaves out the minibatch that is their last, or training stops within them."""

import pytest
import torch
from torch import nn

from potstill.compression import (
    CompressionScheduler,
    PrunerArgs,
    PruningPolicy,
    RegularizationPolicy,
    RegularizerArgs,
    Window,
)
from potstill.compression.pruners import ActivationAPoZRankedFilterPruner, AutomatedGradualPruner
from potstill.compression.regularizers import L0Regularizer, L1Regularizer

KEPT = PrunerArgs(mask_on_forward_only=True, keep_mask=True)
POLICIES = {
    "gates": lambda: RegularizationPolicy(L0Regularizer(["0.weight"], target_sparsity=0.5)),
    "threshold": lambda: RegularizationPolicy(
        L1Regularizer({"0.weight": 0.1}, threshold_criteria="Max"), RegularizerArgs(keep_mask=True)
    ),
    "soft masks": lambda: PruningPolicy(AutomatedGradualPruner(0.3, 0.5, ["0.weight"]), KEPT),
}
WINDOWS = {"epochs": Window.between(0, 2), "minibatches": Window.between(0, 6, unit="minibatch")}


def trained(make_run, policy, window, left_out=(), epochs=4):
    run = make_run()
    run.scheduler.add_policy(policy, window)
    for epoch in range(epochs):
        run.scheduler.on_epoch_begin(epoch, run.optimizer, run.minibatches)
        for i in range(run.minibatches):
            if (epoch, i) not in left_out:
                run.minibatch(epoch, i)
        run.scheduler.on_epoch_end(epoch, run.optimizer, minibatches_per_epoch=run.minibatches)
    return run.model, run.scheduler


def assert_over(model, scheduler):
    modes = [owned.mode for owned in scheduler.zeros_mask_dict["0.weight"].owners.values()]
    assert modes == ["hard"]
    assert bool((scheduler.zeros_mask_dict["0.weight"].mask == 0).any())
    x = torch.randn(8, 3, 8, 8)
    assert torch.equal(model.train()(x), model(x)), "nothing is drawn any more"


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", POLICIES)
def test_the_last_minibatch_is_left_out(make_run, name, window):
    assert_over(*trained(make_run, POLICIES[name](), WINDOWS[window]))
    assert_over(*trained(make_run, POLICIES[name](), WINDOWS[window], left_out=[(1, 2)]))


@pytest.mark.parametrize("name", ["gates", "soft masks"])
def test_training_stops_within_the_window(make_run, name):
    model, scheduler = trained(make_run, POLICIES[name](), WINDOWS["epochs"], epochs=1)
    scheduler.finish()
    assert_over(model, scheduler)


def test_a_pruner_of_two_policies_is_released_once_by_each_after_a_resume():
    """The first policy's end was dealt with before the checkpoint: it must not end the second one's watching."""

    def made():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4))
        scheduler, pruner = CompressionScheduler(model), ActivationAPoZRankedFilterPruner(0.25, ["0.weight"])
        scheduler.add_policy(PruningPolicy(pruner), Window.at([1]), name="one")
        scheduler.add_policy(PruningPolicy(pruner), Window.at([4]), name="two")
        return model, scheduler, pruner

    def epochs(model, scheduler, which):
        for epoch in which:
            scheduler.on_epoch_begin(epoch)
            scheduler.on_minibatch_begin(epoch, 0, 1)
            model(torch.randn(8, 6))
            scheduler.on_minibatch_end(epoch, 0, 1)
            scheduler.on_epoch_end(epoch)

    model, scheduler, _ = made()
    epochs(model, scheduler, range(3))
    resumed, other, watching = made()
    other.load_state_dict(scheduler.state_dict())
    epochs(resumed, other, [3])
    assert watching.statistics.mean("0.weight") is not None
    assert watching._handles
    epochs(resumed, other, [4, 5])
    assert not watching._handles
