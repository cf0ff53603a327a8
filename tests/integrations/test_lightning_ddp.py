"""Lightning on two processes: all ranks end alike, a resumed run as an uninterrupted one, thinned in mid-training."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("lightning.pytorch")


@pytest.mark.slow
def test_two_processes_agree_and_go_on_bit_for_bit(tmp_path):
    script = Path(__file__).with_name("ddp_run.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    whole = found[0]["whole"]
    assert whole["net.0.weight"].shape == (4, 1, 3, 3)
    assert int((whole["net.3.weight"] == 0).sum()) == int(0.8 * 6 * 4 * 9)
    for other in (found[0]["again"], found[1]["whole"], found[1]["again"]):
        assert whole.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in whole.items())


def test_flat_parameters_are_refused():
    from lightning.pytorch.strategies import FSDPStrategy

    from potstill.integrations.lightning import CompressionCallback

    trainer = SimpleNamespace(strategy=FSDPStrategy.__new__(FSDPStrategy))
    with pytest.raises(ValueError, match=r"FSDPStrategy makes one flat parameter of many.* ModelParallelStrategy"):
        CompressionCallback({}).on_fit_start(trainer, None)
