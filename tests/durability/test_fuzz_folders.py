"""What run folders hold beside checkpoints, and data sets, a little wrong; the long form is `--mutations 10000`."""

import gzip
import io
import json
import random
import struct
from dataclasses import asdict
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from potstill.command.compare import runs_in
from potstill.command.errors import UsageError
from potstill.command.greedy.record import Record, Size, Step
from potstill.command.greedy.search import Tried
from potstill.command.modes.sensitivity_table import HEADER, Analysis, SensitivityTable
from potstill.command.report import write_comparison_report, write_report
from potstill.compression import CheckpointError
from potstill.compression.latency import table
from potstill.models.datasets import DatasetError
from potstill.models.datasets.idx import read_idx
from potstill.models.datasets.sources import file_shape, read_image

from ..report.folders import write_run
from .mutate import mutate_bytes, mutate_fields, no_hang
from .test_fuzz_files import SHORT, one_line

STEP = Step(0, "conv1.weight", 3, 50.0, 90.0, 1.5, 1000, 0.8, 1.25)
RECORD = Record(Size(1200, 1.5), [STEP], [Tried("conv2.weight", 2, 49.0, 88.0, 1.625)])
ANALYSIS = Analysis("element", [0.0, 0.5], ["conv1.weight", "fc.weight"], "mlp", "abc", "def", 32, "cpu")
ROWS = ["conv1.weight,0.0,50.0,90.0,1.5\n", "conv1.weight,0.5,49.0,90.0,1.75\n"]


def mutant_of(value, chance):
    """Bytes of JSON with wrong bytes, or with wrong fields."""
    if chance.random() < 0.5:
        return mutate_bytes(json.dumps(value).encode(), chance)
    return json.dumps(mutate_fields(value, chance)[0], default=str).encode()


def is_refused(act, *errors):
    with no_hang():
        try:
            act()
        except errors as error:
            return one_line(error)
    return False


def test_records_of_greedy_runs(tmp_path, mutations, fuzz_seed):
    refused = 0
    for number in range(mutations):
        (tmp_path / "greedy.json").write_bytes(mutant_of(asdict(RECORD), random.Random(f"{fuzz_seed} {number}")))
        refused += is_refused(lambda: Record.of(SimpleNamespace(path=tmp_path)), CheckpointError)
    assert mutations / 4 < refused < mutations


def test_tables_of_sensitivities(tmp_path, mutations, fuzz_seed):
    refused = 0
    for number in range(mutations):
        chance, table = random.Random(f"{fuzz_seed} {number}"), "".join([HEADER, *ROWS]).encode()
        spoils_table = chance.random() < 0.5
        (tmp_path / "sensitivity.csv").write_bytes(mutate_bytes(table, chance) if spoils_table else table)
        description = json.dumps(asdict(ANALYSIS)).encode()
        (tmp_path / "sensitivity.json").write_bytes(
            description if spoils_table else mutant_of(asdict(ANALYSIS), chance)
        )
        refused += is_refused(lambda: SensitivityTable(tmp_path, ANALYSIS), UsageError, CheckpointError)
    assert mutations / 4 < refused < mutations


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_of_mnist(tmp_path, mutations, fuzz_seed, suffix):
    sound, refused = struct.pack(">4B3I", 0, 0, 8, 3, 4, 6, 5) + bytes(range(120)), 0
    path = tmp_path / f"images{suffix}"
    for number in range(mutations // 2):
        chance = random.Random(f"{fuzz_seed} {number}")
        mutant = mutate_bytes(sound, chance)
        path.write_bytes(mutate_bytes(gzip.compress(sound, mtime=0), chance) if suffix and number % 2 else
                         gzip.compress(mutant, mtime=0) if suffix else mutant)  # fmt: skip
        refused += is_refused(lambda: read_idx(path, 3), DatasetError)
    assert 0 < refused < mutations


def read(path):
    file_shape(path)
    read_image(path, (3, 8, 8))


def test_images(tmp_path, mutations, fuzz_seed):
    sound = {}
    for form in ("png", "jpeg", "bmp", "gif", "webp", "tiff"):
        file = io.BytesIO()
        Image.fromarray(torch.arange(192, dtype=torch.uint8).reshape(8, 8, 3).numpy()).save(file, form)
        sound[form] = file.getvalue()
    refused = 0
    for number in range(mutations):
        chance = random.Random(f"{fuzz_seed} {number}")
        form = chance.choice(sorted(sound))
        path = tmp_path / f"a.{form}"
        path.write_bytes(mutate_bytes(sound[form], chance))
        refused += is_refused(partial(read, path), DatasetError)
    assert 0 < refused < mutations


def test_summaries_and_metrics(tmp_path, mutations, fuzz_seed):
    folder, refused = write_run(tmp_path / "run"), 0
    sound = {path.name: path.read_bytes() for path in folder.iterdir()}
    count = mutations if mutations > SHORT else mutations // 2
    for number in range(count):
        chance = random.Random(f"{fuzz_seed} run {number}")
        name = chance.choice(["summary.json", "summary.json", *sorted(sound)])
        as_json = name.endswith("json")
        raw = mutant_of(json.loads(sound[name]), chance) if as_json else mutate_bytes(sound[name], chance)
        (folder / name).write_bytes(raw)
        refused += is_refused(lambda: write_report(folder), CheckpointError)
        is_refused(lambda: write_comparison_report(tmp_path, runs_in([folder])), CheckpointError)
        (folder / name).write_bytes(sound[name])
    assert 0 < refused < count


def test_tables_of_latencies(tmp_path, monkeypatch, mutations, fuzz_seed):
    """One that is damaged is measured anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(table, "device_name", lambda device: "a processor")
    times, kept = {f"('Conv2d', {width})": width / 8 for width in range(1, 9)}, 0
    path = table.LatencyTable("cpu").path
    path.parent.mkdir(parents=True)
    for number in range(mutations):
        chance = random.Random(f"{fuzz_seed} latency {number}")
        path.write_bytes(mutant_of({"device": "a processor", "milliseconds": times}, chance))
        with no_hang():
            found = table.LatencyTable("cpu")._times
        assert all(0 < time <= table.LONGEST for time in found.values())
        kept += bool(found)
    assert 0 < kept < mutations
