"""Checkpoints with wrong fields: a run resumed from one goes on to its end, or stops with one line and status 2.

The file itself is sound, as a stranger's would be. The long form is `--mutations 10000`: 2,000 runs.
"""

import copy
import functools
import os
import random
import shutil
import traceback

import pytest
import sklearn.datasets
import torch

import compress_classifier
from potstill.command.run import model_and_data
from potstill.compression import load_checkpoint

from .mutate import mutate_fields, no_hang
from .runs import RUNS

KINDS = [
    "dense copies",
    "splicing",
    "rigl",
    "l0 with a target",
    "thinning in the middle",
    "an average of weights",
    "early stopping and trajectory",
    "filters by gradient and activation",
]


@pytest.fixture(scope="module")
def half_way(trainer, tmp_path_factory):
    """The arguments and the checkpoint of a run of each kind, in the middle of its second epoch."""
    made = {}
    for name in KINDS:
        arguments, schedule = RUNS[name]
        folder = tmp_path_factory.mktemp(name.replace(" ", "_"))
        (folder / "schedule.yaml").write_text(schedule)
        arguments = [*arguments, "--compress", str(folder / "schedule.yaml"), "-o", str(folder)]
        assert trainer.run(arguments, folder / "log", interrupt=[1, 1]) == 130, (folder / "log").read_text()
        made[name] = arguments, load_checkpoint(folder / "latest" / "checkpoint.pt")
    return made


@pytest.fixture
def fast(monkeypatch):
    """Data are read once, nothing waits for the disk, and runs end before they are thinned."""
    bundles = {}

    def cached(*args, **settings):
        key = repr((args, sorted(settings.items(), key=str)))
        if key not in bundles and len(bundles) > 20:
            bundles.clear()  # mutants ask for splits of their own
        if key not in bundles:
            bundles[key] = load(*args, **settings)
        return bundles[key]

    load = model_and_data.load_dataset
    monkeypatch.setattr(model_and_data, "load_dataset", cached)
    monkeypatch.setattr(sklearn.datasets, "load_digits", functools.cache(sklearn.datasets.load_digits))
    monkeypatch.setattr(os, "fsync", lambda number: None)
    monkeypatch.setattr(compress_classifier, "finish", lambda run: None)


def outcome(arguments, capsys):
    """Whether the run went on to its end; if not, what it said."""
    with no_hang():
        try:
            status = compress_classifier.main(arguments)
        except SystemExit as stop:
            status = stop.code
    said = capsys.readouterr().err
    if status == 0:
        return True
    assert status == 2
    first, *rest = [line for line in said.splitlines() if not line.startswith("warning: ")]
    assert first.startswith("compress-classifier: "), said
    assert all("schedule.yaml:" in line for line in rest), said  # a line for each mistake of a schedule
    return False


def test_wrong_fields(half_way, fast, tmp_path, capsys, mutations, fuzz_seed):
    refused, went_on, failures = 0, 0, []
    for number in range(mutations // 5):  # each is a run
        chance = random.Random(f"{fuzz_seed} {number}")
        arguments, checkpoint = half_way[KINDS[number % len(KINDS)]]
        mutant, told = mutate_fields(copy.deepcopy(checkpoint), chance)
        folder = tmp_path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        torch.save(mutant, folder / "checkpoint.pt")
        (folder / "schedule.yaml").write_text(RUNS[KINDS[number % len(KINDS)]][1])
        resume = [str(folder)] if number % 3 == 0 else [str(folder / "checkpoint.pt"), *arguments]
        try:
            fine = outcome(["--resume-from", *resume], capsys)
        except Exception:
            failures.append(f"mutant {number} of seed {fuzz_seed}: {told}\n{traceback.format_exc()[-1500:]}")
            continue
        refused, went_on = refused + (not fine), went_on + fine
    assert not failures, f"{len(failures)} failures:\n" + "\n".join(failures[:10])
    assert refused > mutations / 20 and went_on > 0
