"""Signals whenever they come, streams as they may be given, memory that is out: a line each, and no traceback."""

import os
import signal
import sys

import pytest
import torch

import compress_classifier
from potstill.command.cli.interrupts import LINE, end_at_once, handle
from potstill.command.cli.streams import prepare_streams
from potstill.command.errors import text_of
from potstill.command.modes import sensitivity
from potstill.command.run import finish
from potstill.compression import load_checkpoint

SMALL = ["-a", "mlp_bn_drop", "--limit-train", "64", "--limit-test", "20", "-b", "16", "--epochs", "1"]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def interrupted_at(module, name, monkeypatch, number=signal.SIGINT):
    """Let a signal come whenever a function is called."""
    function = getattr(module, name)

    def called(*args, **kwargs):
        os.kill(os.getpid(), number)
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, called)


def status_of(arguments):
    try:
        return compress_classifier.main(arguments)
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_training_stops_with_the_checkpoint_of_that_minibatch(tmp_path, monkeypatch, capsys, number):
    class Interrupting(compress_classifier.Watch):
        def __init__(self, run, images):
            super().__init__(run, images)
            if run.minibatch == 1:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(compress_classifier, "Watch", Interrupting)
    assert status_of([*SMALL, "-o", str(tmp_path)]) == 130
    assert "stopped at epoch 0 after minibatch 2 of 4" in capsys.readouterr().out
    checkpoint = load_checkpoint(tmp_path / "latest" / "checkpoint.pt")
    assert (checkpoint["epoch"], checkpoint["minibatch"]) == (0, 2)
    assert not (tmp_path / "latest" / "run.lock").exists()


@pytest.mark.parametrize(
    ("module", "name", "more"),
    [
        (compress_classifier, "prepare", []),
        (compress_classifier, "tell_start", []),
        (finish, "test", ["--epochs", "0"]),
        (finish, "latencies", ["--epochs", "0"]),
        (sensitivity, "SensitivityTable", ["--sense", "element", "--sense-range", "0", "0.5", "0.5"]),
    ],
    ids=["start-up", "first lines", "finish", "report", "sensitivity"],
)
def test_elsewhere_it_is_a_line(tmp_path, monkeypatch, capsys, module, name, more):
    interrupted_at(module, name, monkeypatch, signal.SIGHUP)
    assert status_of([*SMALL, "-o", str(tmp_path), *more]) == 130
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert "stopped" in said.out + said.err
    assert not list(tmp_path.glob("*/run.lock"))


def test_what_is_ignored_stays_ignored():
    """As `nohup` has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        old = handle(end_at_once)
        assert signal.SIGHUP not in old and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        for number, handler in old.items():
            signal.signal(number, handler)
    finally:
        signal.signal(signal.SIGHUP, before)


def child(act, *redirected):
    """What a process that does this says to its error stream, and its status."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.dup2(writes, 2)
            for number in redirected:
                os.close(number)
            status = act() or 0
        finally:
            os._exit(status)
    os.close(writes)
    with os.fdopen(reads, "rb") as file:
        said = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode()


def test_while_torch_is_imported_it_ends_at_once():
    def act():
        handle(end_at_once)
        os.kill(os.getpid(), signal.SIGTERM)

    assert child(act) == (130, LINE)


def test_a_closed_stream_takes_nothing_from_the_next_file(tmp_path):
    def act():
        sys.stdout = None
        prepare_streams()
        print("into nothing")
        with (tmp_path / "file").open("w") as file:
            assert file.fileno() > 2
        return 7

    assert child(act, 0, 1) == (7, "")


def test_a_letter_that_a_stream_lacks_is_escaped(tmp_path):
    path = tmp_path / "out"

    def act():
        sys.stdout = path.open("w", encoding="ascii")
        prepare_streams()
        print("Grüße \udcff")
        sys.stdout.flush()

    assert child(act)[0] == 0
    assert path.read_bytes() == b"Gr\\xfc\\xdfe \\udcff\n"


def test_memory_that_is_out_is_a_line():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    for error in (caught.value, MemoryError()):
        assert text_of(error).startswith("memory is out: a smaller --batch-size (-b)")
