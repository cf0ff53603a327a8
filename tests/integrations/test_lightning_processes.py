"""Lightning on two processes: all ranks end alike, and a resumed run as an uninterrupted one."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("lightning.pytorch")
LIMIT = 300
"""Seconds. A rank that waits for the other for ever is a failure."""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank has stored."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, str(Path(__file__).with_name("lightning_processes.py")), str(folder)]
    first = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        printed, _ = first.communicate(timeout=LIMIT)
    finally:  # Lightning starts the other one
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)
    assert first.returncode == 0, printed[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def must_be_alike(ranks, kind):
    """Return what all of them have."""
    whole = ranks[0][kind]["whole"]
    for other in (ranks[0][kind]["again"], ranks[1][kind]["whole"], ranks[1][kind]["again"]):
        assert whole.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in whole.items())
    return whole


@pytest.mark.slow
def test_two_processes_agree_and_go_on_bit_for_bit(ranks):
    """Thinned in mid-training and at the end."""
    whole = must_be_alike(ranks, "ddp")
    assert whole["net.0.weight"].shape == (4, 1, 3, 3)
    assert int((whole["net.3.weight"] == 0).sum()) == int(0.8 * 6 * 4 * 9)


@pytest.mark.slow
def test_sharded_parameters_agree_and_go_on_bit_for_bit(ranks):
    """Masks are stored whole, in the file that rank 0 writes: each rank has to find its part again."""
    whole = must_be_alike(ranks, "sharded")
    assert int((whole["net.3.weight"] == 0).sum()) == int(0.8 * 6 * 8 * 9)
    closed = (whole["net.0.weight"] == 0).flatten(1).all(1)
    assert 0 < int(closed.sum()) < 8 and bool((whole["net.1.bias"][closed] == 0).all())
    assert int((whole["net.6.weight"] == 0).sum()) > 100


@pytest.mark.slow
def test_sharded_parameters_are_not_thinned(ranks):
    for found in ranks:
        assert "'net.0.weight' is sharded over processes (fully_shard): thin before sharding, or" in found["refusal"]


def test_flat_parameters_are_refused():
    from lightning.pytorch.strategies import FSDPStrategy

    from potstill.integrations.lightning import CompressionCallback

    trainer = SimpleNamespace(strategy=FSDPStrategy.__new__(FSDPStrategy))
    with pytest.raises(ValueError, match=r"FSDPStrategy makes one flat parameter of many.* ModelParallelStrategy"):
        CompressionCallback({}).on_fit_start(trainer, None)
