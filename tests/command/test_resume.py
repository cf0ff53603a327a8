"""A run that was interrupted and resumed ends bit-identical to one that was not."""

import os
import signal

import pytest
import torch

import compress_classifier
from potstill.compression import load_checkpoint

SCHEDULE = """
pruners:
  agp: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.6, weights: [fc1.weight, conv2.weight]}
  filters:
    {class: L1RankedStructureParameterPruner_AGP, initial_sparsity: 0, final_sparsity: 0.4, weights: [conv1.weight]}
regularizers:
  lasso: {class: L1Regularizer, reg_regims: {fc2.weight: 1e-4}, threshold_criteria: Max}
lr_schedulers:
  lr: {class: StepLR, step_size: 1, gamma: 0.7}
  cosine: {class: CosineAnnealingLR, T_max: 8}
policies:
  - {pruner: {instance_name: agp}, starting_epoch: 0, ending_epoch: 3, frequency: 1}
  - {pruner: {instance_name: filters}, starting_minibatch: 1, ending_minibatch: 12, minibatch_frequency: 2}
  - {regularizer: {instance_name: lasso}, starting_epoch: 0, ending_epoch: 4, frequency: 1}
  - {lr_scheduler: {instance_name: lr}, starting_epoch: 0, ending_epoch: 2, frequency: 1}
  - {lr_scheduler: {instance_name: cosine}, starting_minibatch: 8, ending_minibatch: 16}
"""


def run(out, *more):
    options = ["--arch", "simplenet_cifar", "--limit-train", "128", "--limit-test", "40", "-b", "32", "--lr", "0.05"]
    return compress_classifier.main([*options, "--compress", str(out.parent / "schedule.yaml"), "-o", str(out), *more])


def assert_same(a, b, path=""):
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert list(a) == list(b), path
        for key in a:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


@pytest.fixture
def exact():
    """What makes runs on this machine bit-identical."""
    yield ["--deterministic"] if torch.cuda.is_available() else []
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("moment", [(1, 0), (1, 2), (2, 3)])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, capsys, moment, optimizer, exact):
    (tmp_path / "schedule.yaml").write_text(SCHEDULE)
    extra = ("--epochs", "4", "--optimizer", optimizer, *exact)
    assert run(tmp_path / "whole", *extra) == 0

    class Interrupt(compress_classifier.Watch):
        def loss_is_good(self, loss, parts):
            if (self.run.epoch, self.run.minibatch) == moment:
                os.kill(os.getpid(), signal.SIGINT)
            return super().loss_is_good(loss, parts)

    with monkeypatch.context() as patch:
        patch.setattr(compress_classifier, "Watch", Interrupt)
        assert run(tmp_path / "parts", *extra) == 130
    folder = tmp_path / "parts" / "latest"
    told = capsys.readouterr().out
    assert f"stopped at epoch {moment[0]} after minibatch {moment[1] + 1} of 4" in told
    assert "go on with: compress-classifier --resume-from" in told
    assert compress_classifier.main(["--resume-from", str(folder)]) == 0

    whole, parts = (load_checkpoint(tmp_path / name / "latest" / "checkpoint.pt") for name in ("whole", "parts"))
    for state in (whole, parts):
        del state["options"]["compress"]
    assert_same(whole, parts)
    metrics = [(tmp_path / name / "latest" / "metrics.csv").read_text() for name in ("whole", "parts")]
    assert metrics[0] == metrics[1]
    assert metrics[0].splitlines()[0].startswith("epoch,train_loss,train_top1,val_loss,val_top1,lr,zeros,gone")
    assert len(metrics[0].splitlines()) == 5


def test_only_a_training_moves_latest(tmp_path, capsys):
    small = ["-a", "simplenet_cifar", "--limit-train", "64", "--limit-test", "32", "--limit-validation", "32"]
    out = [*small, "-o", str(tmp_path)]
    assert compress_classifier.main([*out, "--epochs", "1"]) == 0
    run, latest = (tmp_path / "latest").resolve(), tmp_path / "latest"
    assert compress_classifier.main([*out, "-e", "--exp-load-weights-from", str(run / "checkpoint.pt")]) == 0
    assert compress_classifier.main([*out, "--thinnify", "--resume-from", str(run / "checkpoint.pt")]) == 0
    assert latest.resolve() == run
    before = set(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        compress_classifier.main([*out, "--epochs", "0", "--resume-from", str(run / "checkpoint.pt")])
    assert "--epochs 0 ends before the epoch to go on with, 1" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before
    assert compress_classifier.main(["--resume-from", str(latest), "--epochs", "2"]) == 0
    assert latest.resolve() == run
    assert compress_classifier.main([*out, "--epochs", "0"]) == 0
    assert latest.resolve() != run


def test_a_folder_for_each_of_two_runs_that_start_at_once(tmp_path):
    from potstill.command.run.folder import RunFolder

    first, second = RunFolder.new(tmp_path, "run"), RunFolder.new(tmp_path, "run")
    assert first.path != second.path and not (tmp_path / "latest").exists()
    second.discard()
    first.lead()
    first.close()
    assert not second.path.exists() and (tmp_path / "latest").resolve() == first.path
