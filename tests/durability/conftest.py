"""Options of the long forms, and processes that train."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from potstill.command.run import size_report

HERE = Path(__file__).parent


def pytest_addoption(parser):
    group = parser.getgroup("durability")
    group.addoption("--kills", type=int, default=20, help="SIGKILLs of training processes (long form: 200)")
    group.addoption("--mutations", type=int, default=500, help="mutants of each kind of file (long form: 10000)")
    group.addoption("--fuzz-seed", type=int, default=0, help="seed of kills and mutants")


def option(config, name):
    """The option's value, also where this file was read too late to declare it."""
    defaults = {"kills": 20, "mutations": 500, "fuzz_seed": 0}
    return config.getoption(name, default=defaults[name])


@pytest.fixture(scope="session")
def kills(request):
    return option(request.config, "kills")


@pytest.fixture(scope="session")
def mutations(request):
    return option(request.config, "mutations")


@pytest.fixture(scope="session")
def fuzz_seed(request):
    return option(request.config, "fuzz_seed")


class Trainer:
    """Training processes; see `trainer.py`."""

    def __init__(self):
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "trainer.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._server.stdout.readline()  # it is ready

    def _ask(self, **order):
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def run(self, arguments, log, kill_after=None, interrupt=None):
        """Run the command line to its end, or kill it after some seconds; gives its exit status."""
        child = self._ask(arguments=[str(argument) for argument in arguments], log=str(log), interrupt=interrupt)
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):  # it ended before
                os.kill(child, signal.SIGKILL)
        return self._ask(wait=child)

    def close(self):
        self._server.stdin.close()
        self._server.wait()


@pytest.fixture(autouse=True)
def _no_time_for_latencies(monkeypatch):
    monkeypatch.setattr(size_report, "SECONDS", 0.0)


@pytest.fixture(scope="session")
def trainer():
    trainer = Trainer()
    yield trainer
    trainer.close()
