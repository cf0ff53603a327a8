"""When policies acted; those that never did are told, with the reason."""

from __future__ import annotations

import logging

import pytest
import torch

from potstill.compression import CompressionScheduler, PruningPolicy, Window
from potstill.compression.pruners import L1RankedStructureParameterPruner

HALF = {"desired_sparsity": 0.5, "weights": ["0.weight"]}


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def pruner() -> L1RankedStructureParameterPruner:
    return L1RankedStructureParameterPruner(**HALF)


def test_first_and_last_steps_survive_a_resume(make_run) -> None:
    run = make_run().prune(pruner(), Window.between(1, 5, 2), "half")
    run.train(range(4))
    first, last = run.scheduler.history.spans["half"]
    assert (first.epoch, last.epoch) == (1, 3)
    again = make_run().prune(pruner(), Window.between(1, 5, 2), "half")
    again.scheduler.load_state_dict(run.scheduler.state_dict())
    assert again.scheduler.history.spans == run.scheduler.history.spans


@pytest.mark.parametrize(
    ("window", "why"),
    [
        (Window.between(30, 40), "late never acted: it begins at epoch 30, and training ended in epoch 1, minibatch 2"),
        (Window.between(100, 200, 10, "minibatch"), "late never acted: it begins at minibatch 100, and training ended"),
    ],
)
def test_a_window_that_training_does_not_reach(window, why, caplog, make_run) -> None:
    run = make_run().prune(pruner(), window, "late").train(range(2))
    assert warnings(caplog) == []
    run.scheduler.finish()
    run.scheduler.finish()
    (told,) = warnings(caplog)
    assert told.startswith(why)


def test_a_window_that_training_cuts_off(caplog, make_run) -> None:
    run = make_run().prune(pruner(), Window.between(0, 9, 4), "cut").prune(pruner(), Window.between(0, 2), "whole")
    run.train(range(2))
    run.scheduler.finish()
    run.scheduler.finish()
    (told,) = warnings(caplog)
    assert told.startswith("cut was cut off: it would act up to epoch 8, and acted last in epoch 0, minibatch 0 of ")


def test_hooks_of_epochs_that_are_missing_are_told_at_once_and_only_where_a_policy_waits(caplog, make_run) -> None:
    run = make_run().prune(pruner(), Window.at([0]), "waits").prune(pruner(), Window.at([0], "minibatch"), "acts")
    run.scheduler.on_minibatch_begin(0, 0, 3, run.optimizer)
    (told,) = warnings(caplog)
    assert "on_epoch_begin was not: waits would never act" in told
    run.scheduler.on_minibatch_begin(1, 0, 3, run.optimizer)
    run.scheduler.finish()
    assert warnings(caplog)[1:] == ["waits never acted: on_epoch_begin was never called"]


def test_no_hook_at_all(caplog) -> None:
    scheduler = CompressionScheduler(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)))
    scheduler.add_policy(PruningPolicy(pruner()), Window.at([0]), name="alone")
    scheduler.finish()
    assert warnings(caplog) == [
        "alone never acted: no hook of the scheduler was called (see attach, or call the hooks in the training loop)"
    ]


def test_a_state_that_does_not_know_leaves_it_open(caplog, make_run) -> None:
    run = make_run().prune(pruner(), Window.at([0]), "half").train(range(1))
    again = make_run().prune(pruner(), Window.at([0]), "half")
    again.scheduler.load_state_dict({k: v for k, v in run.scheduler.state_dict().items() if k != "acted"})
    again.scheduler.finish()
    assert warnings(caplog) == []
