"""One run in many processes, started as torchrun starts them; each has a time limit, so that a hang is a failure."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from potstill.compression import load_checkpoint

SECONDS = 900  # on a busy machine; without other work a run takes about 20
SMALL = ["-a", "simplenet_mnist", "--dataset", "digits", "-b", "32"]
SMALL += ["--limit-train", "96", "--limit-validation", "40", "--limit-test", "50"]
SCHEDULE = """
version: 1
pruners:
  f: {class: ActivationAPoZRankedFilterPruner, desired_sparsity: 0.5, weights: [conv1.weight, fc1.weight]}
policies:
  - {pruner: {instance_name: f}, epochs: [1]}
"""


def start(processes, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [*command, "-m", "compress_classifier", *map(str, arguments)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=one_thread)


def finished(process):
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        for pid in (*workers(process), process.pid):
            os.kill(pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"the run hangs: {output[-3000:]}") from None
    return process.returncode, output


def run(processes, *arguments):
    status, output = finished(start(processes, *arguments))
    assert status == 0, output[-3000:]
    return output


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "plan.yaml").write_text(SCHEDULE)
    return [*SMALL, "--device", "cpu", "--compress", tmp_path / "plan.yaml", "-o", tmp_path / "runs"]


def rows(folder):
    return (folder / "metrics.csv").read_text().splitlines()


def test_two_processes_are_one_run(tmp_path, plan):
    output = run(2, *plan, "--epochs", 2)
    folders = [path for path in (tmp_path / "runs").iterdir() if not path.is_symlink()]
    assert len(folders) == 1 and len(rows(folders[0])) == 3
    assert output.count("trains simplenet_mnist on") == output.count("epoch 1: train") == 1
    summary = json.loads((folders[0] / "summary.json").read_text())
    assert summary["thinned"]["parameters"] < 0.6 * summary["dense"]["parameters"]
    checkpoint = load_checkpoint(folders[0] / "checkpoint.pt")
    assert checkpoint["meter"]["images"] == 96 and len(checkpoint["ranks"]) == 2


@pytest.mark.slow
def test_it_goes_on_with_other_numbers(tmp_path, plan):
    run(2, *plan, "--epochs", 1)
    folder = (tmp_path / "runs" / "latest").resolve()
    for processes, epochs in ((1, 2), (3, 3), (2, 4)):
        run(processes, "--resume-from", folder, "--epochs", epochs)
        assert len(rows(folder)) == 1 + epochs
    assert load_checkpoint(folder / "checkpoint.pt")["meter"]["images"] == 96


def workers(process):
    return [int(pid) for pid in os.popen(f"pgrep -P {process.pid}").read().split()]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_it_leaves_a_checkpoint_and_goes_on_bit_identical(tmp_path, plan, number):
    long = [*plan, "--epochs", 30]
    process = start(2, *long)
    folder = wait_for_rows(tmp_path / "runs", 3)
    process.send_signal(number)
    status, output = finished(process)
    assert status != 0
    assert "go on with: compress-classifier --resume-from" in output
    run(2, "--resume-from", folder)
    run(2, *long[:-2], "--epochs", 30, "-o", tmp_path / "whole")
    parts = load_checkpoint(folder / "checkpoint.pt")
    whole = load_checkpoint((tmp_path / "whole" / "latest").resolve() / "checkpoint.pt")
    assert parts["rows"] == whole["rows"]
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(parts["state_dict"][name], tensor), name


@pytest.mark.slow
def test_a_killed_rank_ends_all(tmp_path, plan):
    process = start(2, *plan, "--epochs", 1000)
    wait_for_rows(tmp_path / "runs", 3)
    os.kill(workers(process)[1], signal.SIGKILL)
    status, output = finished(process)
    assert status != 0, output


def wait_for_rows(runs, count):
    """The folder of a run that has so many lines of metrics."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        folders = [path for path in runs.iterdir() if not path.is_symlink()] if runs.is_dir() else []
        if folders and (folders[0] / "metrics.csv").exists() and len(rows(folders[0])) > count:
            return folders[0]
        time.sleep(0.1)
    raise AssertionError("the run does not begin")
