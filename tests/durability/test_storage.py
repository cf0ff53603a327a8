"""Writing: whatever happens in between, an older or the newer checkpoint can be read, and errors are one line."""

import errno
import logging
import os
import resource
import signal
import subprocess
from contextlib import contextmanager

import pytest
import torch

import compress_classifier
from potstill.command.run.folder import RunFolder
from potstill.compression import CheckpointError, load_checkpoint, save_checkpoint
from potstill.compression.files.checkpoints import write_atomically

CALLS = ("open", "fsync", "replace", "link", "unlink")


def contents(epoch):
    return {"epoch": epoch, "minibatch": 0, "arch": "mlp", "state_dict": {"w": torch.full((20_000,), float(epoch))}}


@contextmanager
def killed_at(number, monkeypatch):
    """The process dies just before its n-th system call that changes the disk; what it did before stays."""
    calls = 0

    def wrap(call):
        def counted(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == number:
                os._exit(0)
            return call(*args, **kwargs)

        return counted

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrap(getattr(os, name)))
        yield


def saves_and_dies(path, epoch, number, monkeypatch):
    """In a child process; whether it was killed before the end."""
    child = os.fork()
    if child == 0:
        with killed_at(number, monkeypatch):
            save_checkpoint(path, contents(epoch))
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("damaged", [False, True], ids=["sound", "newest damaged before"])
def test_killed_between_any_two_system_calls_of_a_save(tmp_path, monkeypatch, damaged):
    number, killed = 1, True
    while killed:
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "checkpoint.pt"
        save_checkpoint(path, contents(1))
        save_checkpoint(path, contents(2))
        if damaged:
            path.write_bytes(path.read_bytes()[:-1000])
        killed = saves_and_dies(path, 3, number, monkeypatch)
        found = load_checkpoint(path)
        assert found["epoch"] in ((1, 3) if damaged else (1, 2, 3)) and (killed or found["epoch"] == 3)
        assert torch.equal(found["state_dict"]["w"], contents(found["epoch"])["state_dict"]["w"])
        save_checkpoint(path, contents(4))
        assert load_checkpoint(path)["epoch"] == 4
        assert {p.name for p in folder.iterdir()} <= {"checkpoint.pt", "checkpoint.pt.previous"}
        number += 1
    assert number > 6, "a save makes at least these calls"


@contextmanager
def file_size_limit(size):
    """Like a full disk: files cannot grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 1000, 50_000, 79_000])
def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, size):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, contents(1))
    with file_size_limit(size), pytest.raises(CheckpointError) as caught:
        save_checkpoint(path, contents(2))
    assert str(caught.value).endswith("cannot be written: File too large")
    assert load_checkpoint(path)["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, where mounting is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(small_disk):
    path = small_disk / "checkpoint.pt"
    save_checkpoint(path, contents(1))
    (small_disk / "other").write_bytes(bytes(900_000))
    with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
        save_checkpoint(path, contents(2))
    assert load_checkpoint(path)["epoch"] == 1


def test_a_run_on_a_full_disk_stops_with_one_line(trainer, tmp_path, small_disk):
    (small_disk / "other").write_bytes(bytes(600_000))
    arguments = ["-a", "simplenet_cifar", "--limit-train", "64", "--limit-test", "30", "--epochs", "4"]
    assert trainer.run([*arguments, "-o", small_disk], tmp_path / "log") == 2
    said = (tmp_path / "log").read_text()
    assert "cannot be written: No space left on device" in said.splitlines()[-1]
    assert "Traceback" not in said and "Logging error" not in said


def test_a_log_that_cannot_be_written_is_said_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # consoles of other tests
    folder = RunFolder(tmp_path / "run")
    logger = logging.getLogger("potstill")
    try:
        with file_size_limit(0):
            logger.warning("first")
            logger.warning("second")
    finally:
        folder.close()
    assert capsys.readouterr().err == f"warning: {tmp_path}/run/run.log cannot be written: File too large\n"


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO])
def test_what_the_system_says_is_passed_on(tmp_path, monkeypatch, error):
    path = tmp_path / "metrics.csv"
    path.write_text("old")

    def refuse(*args):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(CheckpointError, match=f"metrics.csv: cannot be written: {os.strerror(error)}"):
        write_atomically(path, lambda file: file.write(b"new") and None)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, contents(1))
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="cannot be written: Permission denied"):
            save_checkpoint(path, contents(2))
        assert load_checkpoint(path)["epoch"] == 1
    finally:
        tmp_path.chmod(0o700)


def test_a_read_only_folder(small_disk, capsys):
    path = small_disk / "checkpoint.pt"
    save_checkpoint(path, contents(1))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(CheckpointError, match="cannot be written: Read-only file system"):
        save_checkpoint(path, contents(2))
    assert load_checkpoint(path)["epoch"] == 1
    with pytest.raises(SystemExit) as stop:
        compress_classifier.main(["-a", "mlp", "--epochs", "1", "-o", str(small_disk / "runs")])
    assert stop.value.code == 2
    assert "cannot write the run folder: Read-only file system" in capsys.readouterr().err


def test_a_folder_that_is_a_file(tmp_path, capsys):
    (tmp_path / "runs").write_text("")
    with pytest.raises(SystemExit) as stop:
        compress_classifier.main(["-a", "mlp", "--epochs", "1", "-o", str(tmp_path / "runs")])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "runs" in said and "cannot write the run folder" in said
    assert said.count("\n") == 1
