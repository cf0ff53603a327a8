"""A sweep of tiny runs; nothing is timed for long."""

import pytest

import compress_classifier
from potstill.command.run import size_report

SCHEDULE = """
regularizers:
  gates: {class: L0Regularizer, weights: [layers.1.weight, layers.4.weight], target_sparsity: 0.4, droprate_init: 0.05}
lr_schedulers:
  step: {class: StepLR, step_size: 1, gamma: 0.8}
policies:
  - {regularizer: {instance_name: gates}, starting_epoch: 1, ending_epoch: 3}
  - {lr_scheduler: {instance_name: step}, starting_epoch: 0, ending_epoch: 4}
"""
NET = ["-a", "mlp_bn_drop", "--limit-train", "64", "--limit-validation", "40", "--limit-test", "30", "-b", "32"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(size_report, "SECONDS", 0)


@pytest.fixture
def command(tmp_path):
    """The command line with these arguments: its exit status."""
    (tmp_path / "s.yaml").write_text(SCHEDULE)

    def call(*more, out="out"):
        start = [*NET, "--lr", "0.02", "--compress", str(tmp_path / "s.yaml"), "-o", str(tmp_path / out)]
        try:
            return compress_classifier.main([*([] if "--resume-from" in more else start), *more])
        except SystemExit as stop:
            return stop.code

    return call
