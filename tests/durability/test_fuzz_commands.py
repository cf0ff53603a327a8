"""Command lines by chance, on run folders that a stranger made: each ends in order, and changes nothing elsewhere.

The long form is `--mutations 10000`: 1,000 command lines, each in a process of its own.
"""

import json
import math
import os
import random
import shutil
import signal
import sys
import traceback
import unicodedata

import pytest
import torch

import compress_classifier

from .mutate import mutate_bytes, mutate_fields
from .test_fuzz_schedules import mutate_text

SECONDS, MOST_MEMORY, SHORT = 60, 2500, 500
SMALL = ["-a", "simplenet_cifar", "--limit-train", "48", "--limit-test", "20", "-b", "16", "--epochs", "1"]
SCHEDULE = """\
pruners:
  filters: {class: L1RankedStructureParameterPruner, desired_sparsity: 0.4, group_type: 3D, weights: [conv2.weight]}
policies:
  - {pruner: {instance_name: filters}, epochs: [0]}
"""
NUMBERS = ["0", "1", "-1", "33", "1e9", "1e400", "nan", "2" * 30, "9" * 5000, "²", "0x10", "", " ", "1.5", "true"]
TEXTS = ["x\nFORGED", "\x1b[31m", "=1+1", "\u202eevil", "a" * 300, "../..", "/dev/full", "$x$", "|<b>|", "ü", "\udcff"]
OPTIONS = {
    **dict.fromkeys(["--epochs", "-b", "--seed", "--limit-train", "--limit-test", "--round-to", "-p"], NUMBERS),
    **dict.fromkeys(["--lr", "--momentum", "--wd", "--validation-split", "--num-best-scores"], NUMBERS),
    **dict.fromkeys(["-n", "--compress", "--dataset", "-a", "--trajectory", "--early-stop", "--data"], TEXTS),
    "--checkpoint-every": [*NUMBERS, "1m", "0m", "m"],
    "--device": ["cpu", "nowhere", "cuda:99"],
    "--optimizer": ["sgd", "adam", "none"],
    "--table": ["text", "csv", "markdown", "json"],
    "--act-stats": ["train", "test"],
    "--on-nan": ["skip"],
    "--best-by": ["top1"],
    "--final": ["best"],
    "--augmentation": ["none", "crop_flip"],
    "--kd-teacher": ["simplenet_cifar"],
    "--kd-resume": TEXTS,
}
SWITCHES = ["--confusion", "--masks-sparsity", "--tensorboard", "--reset-optimizer", "--save-untrained-model", "--det"]
KINDS = ["link", "fifo", "bytes", "device", "missing", "name", "option", "schedule", "fields", "fields", "fields"]
MODES = [
    [], [], [], ["-e"], ["--thinnify"], ["--summary", "sparsity"], ["--summary", "channels"], ["--dry-run"],
    ["--sense", "element", "--sense-range", "0", "0.5", "0.5"], ["--dry-run", "--table", "markdown"],
    ["--summary", "params"], ["--summary", "compute", "--table", "csv"], ["--dry-run", "--plot"],
    ["--greedy", "--greedy-target-density", "0.97", "--greedy-pruning-step", "0.5", "--greedy-ft-epochs", "0"],
    ["--sense", "filter", "--sense-range", "0", "0.5", "0.5", "--sense-folder", "run"],
]  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    out = tmp_path_factory.mktemp("sound")
    (out / "s.yaml").write_text(SCHEDULE)
    assert compress_classifier.main([*SMALL, "--compress", str(out / "s.yaml"), "-o", str(out)]) == 0
    return (out / "latest").resolve()


def spoiled(folder, victim, chance):
    """Do what a stranger could do to a run folder; say what."""
    names = sorted(path.name for path in folder.iterdir())
    name = chance.choice(["checkpoint.pt"] * 4 + names)
    path = folder / name
    kind = chance.choice(KINDS)
    if kind in ("link", "fifo", "missing", "device"):
        path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(victim)
        (folder / f"{name}.part").symlink_to(victim)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "schedule":
        (folder / "schedule.yaml").write_text(mutate_text(SCHEDULE, chance), "utf-8", "surrogateescape")
    elif kind == "bytes":
        path.write_bytes(mutate_bytes(path.read_bytes(), chance))
    elif kind == "fields":
        contents, told = mutate_fields(torch.load(folder / "checkpoint.pt", weights_only=True), chance)
        torch.save(contents, folder / "checkpoint.pt")
        return told
    elif kind == "name":
        contents = torch.load(folder / "checkpoint.pt", weights_only=True)
        contents[chance.choice(["arch", "optimizer_name", "split", "split_names", "rows"])] = chance.choice(TEXTS)
        torch.save(contents, folder / "checkpoint.pt")
    elif kind == "option":
        contents = torch.load(folder / "checkpoint.pt", weights_only=True)
        name = chance.choice(sorted(contents["options"]))
        contents["options"][name] = chance.choice([*TEXTS, 0, -1, 2**40, 0.5, True, str(victim), [1], math.nan])
        torch.save(contents, folder / "checkpoint.pt")
    return f"{kind} {name}"


def command(chance, folder):
    """A command line."""
    start = chance.choice([[folder], [folder], [folder / "checkpoint.pt", "--epochs", 2]])  # a file knows no epochs
    start = ["--resume-from", *start]
    arguments = chance.choice([start, start, SMALL, [*SMALL, *start]])
    for name in chance.sample(sorted(OPTIONS), chance.choice([0, 0, 1, 2])):
        arguments = [*arguments, name, chance.choice(OPTIONS[name])]
    arguments = [*arguments, *chance.sample(SWITCHES, chance.choice([0, 0, 1]))]
    return [*map(str, arguments), *chance.choice(MODES)]


def executed(arguments, out):
    """Exit status (or signal), what was said, and the peak of memory in MiB."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            signal.alarm(SECONDS)
            os.chdir(out.parent)
            file = os.open(out, os.O_WRONLY | os.O_CREAT)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            status = compress_classifier.main(arguments)
        except SystemExit as stop:
            status = stop.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, status, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), out.read_text("utf-8", "surrogateescape"), usage.ru_maxrss // 1024


def test_command_lines_end_in_order(sound, tmp_path, mutations, fuzz_seed):
    worst, ended, count = 0, {}, mutations // 10 if mutations > SHORT else 10
    torch.set_num_threads(1)
    for number in range(count):
        chance = random.Random(f"{fuzz_seed} command {number}")
        room = tmp_path / str(number)
        room.mkdir()
        victim = room / "victim"
        victim.write_text("precious\n")
        folder = shutil.copytree(sound, room / "run")
        told = spoiled(folder, victim, chance) if chance.random() < 0.7 else "sound"
        arguments = [*command(chance, folder), "-o", str(room / "out")]
        status, said, peak = executed(arguments, room / "said")
        where = f"{number}: {json.dumps(arguments)[:600]} ({told}): {said[-600:]}"
        assert status in (0, 2, 130), f"exit status {status} of {where}"
        assert "Traceback" not in said, where
        assert not [c for c in said if c != "\n" and unicodedata.category(c) in ("Cc", "Cs")], where
        assert not any(line.startswith("FORGED") for line in said.splitlines()), where
        assert victim.read_text() == "precious\n", where
        assert {path.name for path in room.iterdir()} <= {"victim", "run", "out", "said", "runs"}, where
        assert peak < MOST_MEMORY, f"{peak} MiB: {where}"
        worst, ended[status] = max(worst, peak), ended.get(status, 0) + 1
        shutil.rmtree(room)
    print(f"{sum(ended.values())} command lines, ended with {ended}, at most {worst} MiB")
