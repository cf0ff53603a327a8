"""A training process that is killed at random moments and resumed ends bit-identical to one that never was.

The long form: `pytest tests/durability/test_kills.py --kills 200`.
"""

import random
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from potstill.compression import load_checkpoint

from .runs import RUNS

KILLED = -9
OF_THIS_CALL = ("out_dir", "compress", "resume_from", "checkpoint_every")
"""Options that differ between a run and its continuation."""


def assert_same(a, b, path):
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
        assert a.dtype == b.dtype and torch.equal(a, b), path
    else:
        assert a == b, path


def assert_same_results(whole: Path, parts: Path):
    for name in ("checkpoint.pt", "best.pt", "thinned.pt"):
        states = [load_checkpoint(folder / name) for folder in (whole, parts)]
        for state in states:
            for option in OF_THIS_CALL:
                state["options"].pop(option, None)
        assert_same(*states, name)
    for name in ("metrics.csv", "recipe.json", "schedule.yaml"):
        assert (whole / name).read_text() == (parts / name).read_text(), name
    assert_same(*(load_file(folder / "thinned.safetensors") for folder in (whole, parts)), "thinned.safetensors")
    if (whole / "trajectory.safetensors").exists():
        assert_same(*(load_file(folder / "trajectory.safetensors") for folder in (whole, parts)), "trajectory")
    left = sorted(path.name for path in parts.iterdir() if path.suffix in {".part", ".new"})
    assert not left, "files of a write that was cut off stay behind"


def one_folder(out: Path) -> Path | None:
    """The run folder, if there is one that can go on."""
    kept = {"checkpoint.pt", "checkpoint.pt.new", "checkpoint.pt.previous"}
    found = {path.parent for path in out.glob("*/checkpoint.pt*") if path.name in kept and not path.parent.is_symlink()}
    return found.pop() if found else None


def train_with_kills(trainer, arguments, out, moments):
    """Start, and go on after each kill, until the run is complete; gives its folder and the number of kills."""
    count = 0
    while True:
        folder = one_folder(out)
        more = ["--resume-from", folder] if folder else [*arguments, "-o", out]
        moment = next(moments, None)
        status = trainer.run(more, out.with_suffix(".log"), moment)
        if status == 0:
            return one_folder(out), count
        assert status == KILLED, out.with_suffix(".log").read_text()[-3000:]
        count += 1


@pytest.mark.parametrize("name", RUNS)
def test_killed_and_resumed_equals_uninterrupted(name, trainer, tmp_path, kills, fuzz_seed):
    arguments, schedule = RUNS[name]
    (tmp_path / "schedule.yaml").write_text(schedule)
    exact = ["--deterministic"] if torch.cuda.is_available() else []
    arguments = [*arguments, *exact, "--compress", tmp_path / "schedule.yaml"]
    start = time.monotonic()
    assert trainer.run([*arguments, "-o", tmp_path / "whole"], tmp_path / "whole.log") == 0, (
        tmp_path / "whole.log"
    ).read_text()[-3000:]
    duration = time.monotonic() - start
    chance = random.Random(f"{name} {fuzz_seed}")
    wanted, attempts = -(-kills // len(RUNS)), 0
    while wanted > 0:
        attempts += 1
        assert attempts <= 10 + 3 * kills, "runs end before they can be killed"
        out = tmp_path / f"parts{attempts}"
        moments = iter([chance.uniform(0, duration) for _ in range(min(wanted, 4))])
        folder, killed = train_with_kills(trainer, [*arguments, "--checkpoint-every", "2"], out, moments)
        wanted -= killed
        assert_same_results(one_folder(tmp_path / "whole"), folder)
