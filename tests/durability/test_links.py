"""A stranger's folder: nothing is opened through its links and pipes, and one process at a time uses it."""

import copy
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn

import compress_classifier
from potstill.command.errors import UsageError
from potstill.command.plots.network import draw_network
from potstill.command.run.lock import hold, release
from potstill.compression import CheckpointError, load_checkpoint, save_checkpoint
from potstill.thinning import ThinningError, load, save, thin
from potstill.thinning.files.atomic import write_atomically
from potstill.thinning.files.regular import NotRegularError, make_folder, must_be_regular, open_regular, read_whole

NET = ["-a", "symmetry", "--dataset", "symmetry"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert compress_classifier.main([*NET, "--epochs", "1", "-o", str(out)]) == 0
    return (out / "latest").resolve()


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "copy")


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim"
    path.write_text("precious\n")
    return path


def resumed(folder, capsys, *more):
    """The exit status and what was said."""
    try:
        status = compress_classifier.main(["--resume-from", str(folder), "--epochs", "2", *more])
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    return status, said.err


@pytest.mark.parametrize("name", ["run.log", "run.lock", "checkpoint.pt"])
def test_what_a_run_opens_is_no_link(folder, victim, capsys, name):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(victim)
    status, said = resumed(folder, capsys)
    assert status == 2
    assert f"{name}: is a link or no regular file: remove it" in said
    assert victim.read_text() == "precious\n"


@pytest.mark.parametrize(
    "name", ["summary.json", "metrics.csv", "recipe.txt", "thinned.safetensors", "thinned.py", "best.pt"]
)
def test_a_link_under_the_name_of_a_result_is_replaced(folder, victim, capsys, name):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(victim)
    for part in (f"{name}.part", f"{name}.new", f"{name}.previous"):
        (folder / part).unlink(missing_ok=True)
        (folder / part).symlink_to(victim)
    assert resumed(folder, capsys)[0] == 0
    assert victim.read_text() == "precious\n"
    assert (folder / name).is_file()
    assert not (folder / name).is_symlink()


@pytest.mark.parametrize("name", ["activations_train.csv", "activations_test.csv", "environment.json"])
def test_what_options_write_replaces_a_link(folder, victim, capsys, name):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(victim)
    assert resumed(folder, capsys, "--act-stats", "train", "test")[0] == 0
    assert victim.read_text() == "precious\n"


def test_a_network_is_drawn_beside_a_link(tmp_path, victim, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "model.dot").symlink_to(victim)
    with pytest.raises(UsageError, match=r"model.dot is written"):
        draw_network(nn.Linear(2, 2), torch.ones(1, 2), tmp_path / "model")
    assert victim.read_text() == "precious\n" and (tmp_path / "model.dot").read_text().startswith("digraph")


def test_a_run_folder_does_not_say_where_else_to_write(folder, tmp_path, monkeypatch, capsys):
    contents = torch.load(folder / "checkpoint.pt", weights_only=True)
    contents["options"]["out_dir"] = str(tmp_path / "elsewhere")
    torch.save(contents, folder / "checkpoint.pt")
    monkeypatch.chdir(tmp_path)
    half = {"pruners": {"p": {"class": "SparsityLevelParameterPruner", "levels": {"weight": 0.5}}}}
    half["pruners"]["p"]["levels"] = dict.fromkeys(list(contents["state_dict"])[:1], 0.5)
    half["policies"] = [{"pruner": {"instance_name": "p"}, "epochs": [0]}]
    (tmp_path / "s.yaml").write_text(json.dumps(half))
    asked = ["--resume-from", str(folder), "--dry-run", "--plot", "--compress", str(tmp_path / "s.yaml")]
    assert compress_classifier.main(asked) == 0
    assert not (tmp_path / "elsewhere").exists() and (tmp_path / "runs").is_dir()


def test_thinned_networks_are_read_from_files_and_links_to_files(tmp_path, victim):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    path = save(model, thin(model, torch.ones(2, 4)), tmp_path / "store" / "net.safetensors")
    (tmp_path / "cache").mkdir()
    for file in path.parent.iterdir():
        (tmp_path / "cache" / file.name).symlink_to(file)  # as hubs keep what they have downloaded
    load(copy.deepcopy(model), tmp_path / "cache" / "net.safetensors")
    for name in ("net.json", "net.probe.safetensors", "net.safetensors"):
        away = path.with_name(name).rename(tmp_path / "away")
        os.mkfifo(path.with_name(name))
        with pytest.raises(ThinningError, match=f"{name}.*no regular file"):
            load(copy.deepcopy(model), path)
        away.replace(path.with_name(name))


def test_a_pipe_is_not_waited_for(folder, capsys):
    (folder / "run.log").unlink()
    os.mkfifo(folder / "run.log")
    status, said = resumed(folder, capsys)
    assert status == 2
    assert "run.log: is a link or no regular file" in said


def test_a_log_of_two_names_is_added_to_under_one(folder, victim, capsys):
    (folder / "run.log").unlink()
    os.link(victim, folder / "run.log")
    assert resumed(folder, capsys)[0] == 0
    assert victim.read_text() == "precious\n"
    assert (folder / "run.log").read_text().startswith("precious\n")


def test_the_opener_itself(tmp_path, victim):
    link, pipe, missing = tmp_path / "link", tmp_path / "pipe", tmp_path / "missing"
    link.symlink_to(victim)
    os.mkfifo(pipe)
    for path in (link, pipe, tmp_path):
        for mode in ("rb", "ab"):
            with pytest.raises(NotRegularError):
                open_regular(path, mode)
        with pytest.raises(NotRegularError):
            must_be_regular(path)
    with pytest.raises(FileExistsError):
        open_regular(victim, "xb")
    with open_regular(missing, "a", encoding="utf-8") as file:
        file.write("x")
    assert missing.read_text() == "x"
    (tmp_path / "dir").symlink_to(tmp_path)
    with pytest.raises(NotRegularError):
        make_folder(tmp_path / "dir")


def test_a_planted_name_is_never_the_one_that_is_written(tmp_path, victim):
    path = tmp_path / "checkpoint.pt"
    for name in ("checkpoint.pt.part", "checkpoint.pt.new", "checkpoint.pt.previous"):
        (tmp_path / name).symlink_to(victim)
    for epoch in range(3):
        save_checkpoint(path, {"epoch": epoch, "minibatch": 0, "arch": "x", "state_dict": {}})
    assert victim.read_text() == "precious\n"
    assert load_checkpoint(path)["epoch"] == 2
    assert load_checkpoint(path.with_name("checkpoint.pt.previous"))["epoch"] == 1


def test_two_writers_of_one_file_leave_one_whole_file(tmp_path):
    """Each begins before the other ends."""
    path = tmp_path / "file"

    def slow(file):
        file.write(b"a" * 1000)
        write_atomically(path, b"b" * 1000)
        file.write(b"a" * 1000)

    write_atomically(path, slow)
    assert path.read_bytes() == b"a" * 2000
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


HOLD = "import sys, time; from pathlib import Path; from potstill.command.run.lock import hold; hold(Path(sys.argv[1]))"


def test_a_folder_in_use_is_refused_and_a_dead_holder_is_none(tmp_path):
    code = f"{HOLD}; print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(CheckpointError, match=f"is in use by process {holder.pid} on .* since .*: wait for it, or"):
        hold(tmp_path)
    holder.kill()
    holder.wait()
    hold(tmp_path)
    hold(tmp_path)  # this process may as often as it likes
    assert (tmp_path / "run.lock").exists()
    release(tmp_path)
    assert not (tmp_path / "run.lock").exists()


def test_files_of_holes_are_not_read(tmp_path, monkeypatch):
    """A file that says that it has 4 TB and takes none of the disk."""
    path = tmp_path / "holes"
    with path.open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(OSError, match="has more than 32 MiB"):
        read_whole(path)
    model = nn.Linear(2, 2)
    for name in ("net.json", "net.safetensors"):
        os.link(path, tmp_path / name)
        with pytest.raises(ThinningError, match=r"has more than 32 MiB|cannot read"):
            load(model, tmp_path / "net")
        (tmp_path / name).unlink()


def test_a_folder_whose_name_is_no_text_holds_a_network(tmp_path):
    folder = tmp_path / os.fsdecode(b"a\xff\nb")
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    path = save(model, thin(model, torch.ones(2, 4)), folder / "net")
    assert torch.equal(load(copy.deepcopy(model), path)[0].weight, model[0].weight)
