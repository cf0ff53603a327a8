"""The Trainer on two processes: all ranks end alike, and a resumed run as an uninterrupted one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
LIMIT = 600
"""Seconds. A rank that waits for the other for ever is a failure."""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank has stored."""
    folder = tmp_path_factory.mktemp("ranks")
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    own = ["-m", "tests.integrations.transformers_processes", str(folder)]
    whole = subprocess.Popen(
        run + own, cwd=Path(__file__).parents[2], start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        printed, _ = whole.communicate(timeout=LIMIT)
    finally:
        if whole.poll() is None:
            os.killpg(whole.pid, signal.SIGKILL)
    assert whole.returncode == 0, printed[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["agp", "splicing", "gates", "thinned at the end"])
def test_ranks_agree_and_go_on_bit_for_bit(ranks, kind):
    whole = ranks[0][kind]["whole"]
    for other in (ranks[0][kind]["again"], ranks[1][kind]["whole"], ranks[1][kind]["again"]):
        assert whole.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in whole.items())
    units = [tensor for name, tensor in whole.items() if name.endswith("intermediate.dense.weight")]
    assert len(units) == 2
    if kind == "agp":
        assert [int((weight == 0).sum()) for weight in units] == [int(0.8 * 48 * 32)] * 2
    if kind == "thinned at the end":
        assert [tuple(weight.shape) for weight in units] == [(24, 32)] * 2


@pytest.mark.slow
def test_thinning_in_mid_training_is_refused(ranks):
    """The Trainer's wrapper would keep the old shapes."""
    for rank in ranks:
        assert "thin=True" in rank["thinning"]
