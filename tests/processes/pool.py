"""Processes that do jobs together, each with a time limit: one that hangs is a failure."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
STARTING = 240  # seconds, on a busy machine
LOOPBACK = next(name for _, name in socket.if_nameindex() if name in ("lo", "lo0"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Pool:
    """`size` ranks that are started once and do many jobs: loading torch takes longer than any of these."""

    def __init__(self, size: int) -> None:
        self.size, self.workers = size, []

    def start(self) -> None:
        ranks = {"WORLD_SIZE": self.size, "LOCAL_WORLD_SIZE": self.size, "MASTER_PORT": free_port()}
        shared = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": LOOPBACK, "MASTER_ADDR": "127.0.0.1"}
        for rank in range(self.size):
            own = {key: str(value) for key, value in {**ranks, "RANK": rank, "LOCAL_RANK": rank}.items()}
            self.workers.append(
                subprocess.Popen(
                    [sys.executable, str(HERE / "worker.py")],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**shared, **(own if self.size > 1 else {})},
                )
            )
        if not all(self._answers(time.monotonic() + STARTING)):
            self.stop()
            raise AssertionError(f"processes did not start within {STARTING} s")

    def stop(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
            worker.stdin.close()
            worker.stdout.close()
        self.workers.clear()

    def do(self, module: str, function: str, seconds: float = 60, **arguments: object) -> list:
        """What each rank answers; a rank that does not in time is a failure, and all begin anew."""
        if not self.workers:
            self.start()
        for worker in self.workers:
            worker.stdin.write(json.dumps([module, function, arguments]) + "\n")
            worker.stdin.flush()
        lines = self._answers(time.monotonic() + seconds)
        answers = [json.loads(line) if line else None for line in lines]
        wrong = [rank for rank, answer in enumerate(answers) if answer is None]
        failed = [isinstance(answer, dict) and "error" in answer for answer in answers]
        if wrong or (any(failed) and not all(failed)):
            self.stop()  # the others may wait for a rank that failed, in the next job too
        if wrong:
            raise AssertionError(f"ranks {wrong} gave no answer to {function} within {seconds} s, or died")
        return answers

    def _answers(self, end: float) -> list[str]:
        lines = [""] * self.size
        with selectors.DefaultSelector() as selector:
            for rank, worker in enumerate(self.workers):
                selector.register(worker.stdout, selectors.EVENT_READ, rank)
            while selector.get_map() and (left := end - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    lines[key.data] = key.fileobj.readline()
                    selector.unregister(key.fileobj)
        return lines
