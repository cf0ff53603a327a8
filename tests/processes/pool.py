"""Processes that do jobs together, each with a time limit: one that hangs is a failure."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

WORKER = Path(__file__).with_name("worker.py")
STARTING = 600  # seconds, on a busy machine
WORKING = 300  # for a job that takes a few where nothing else runs
LOOPBACK = next(name for _, name in socket.if_nameindex() if name in ("lo", "lo0"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Starter:
    """The process that ranks are forks of: loading torch takes longer than any of their jobs."""

    def __init__(self) -> None:
        shared = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": LOOPBACK, "MASTER_ADDR": "127.0.0.1"}
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **shared},
        )
        assert self.process.stdout.readline() == "ready\n"

    def order(self, *what: object) -> None:
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Pool:
    """`size` ranks that are started once and do many jobs."""

    def __init__(self, starter: Starter, size: int, backend: str = "gloo") -> None:
        self.starter, self.size, self.backend = starter, size, backend
        self.ranks: dict[int, tuple] = {}

    def start(self) -> None:
        shared = {"WORLD_SIZE": self.size, "LOCAL_WORLD_SIZE": self.size, "MASTER_PORT": free_port()}
        every = [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in range(self.size)]
        environments = [{key: str(value) for key, value in own.items()} for own in every]
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as door:
            door.bind(f"{folder}/door")
            door.listen()
            door.settimeout(STARTING)
            self.starter.order(f"{folder}/door", self.backend, environments if self.size > 1 else [{}])
            for _ in range(self.size):
                connection, _ = door.accept()
                answers = connection.makefile()
                number, pid = json.loads(answers.readline())
                self.ranks[number] = connection, answers, pid

    def stop(self) -> None:
        for connection, answers, pid in self.ranks.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            answers.close()
            connection.close()
        self.ranks.clear()

    def do(self, module: str, function: str, seconds: float = WORKING, **arguments: object) -> list:
        """What each rank answers; a rank that does not in time is a failure, and all begin anew."""
        if not self.ranks:
            self.start()
        for connection, *_ in self.ranks.values():
            connection.sendall(json.dumps([module, function, arguments]).encode() + b"\n")
        lines = self._answers(time.monotonic() + seconds)
        answers = [json.loads(line) if line else None for line in lines]
        wrong = [rank for rank, answer in enumerate(answers) if answer is None]
        failed = [isinstance(answer, dict) and "error" in answer for answer in answers]
        if wrong or (any(failed) and not all(failed)):
            self.stop()  # the others may wait for a rank that failed, in the next job too
        if wrong:
            raise AssertionError(f"ranks {wrong} gave no answer to {function} within {seconds} s, or died: {answers}")
        return answers

    def _answers(self, end: float) -> list[str]:
        lines = [""] * self.size
        with selectors.DefaultSelector() as selector:
            for rank, (connection, answers, _) in self.ranks.items():
                selector.register(connection, selectors.EVENT_READ, (rank, answers))
            while selector.get_map() and (left := end - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    rank, answers = key.data
                    with suppress(ConnectionResetError):
                        lines[rank] = answers.readline()
                    selector.unregister(key.fileobj)
        return lines
