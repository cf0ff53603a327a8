"""Carries out the runs of a sweep: one after the other in this process, or several at a time, each in its own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..cli.interrupts import INTERRUPTED
from ..compare.stored import SUMMARY
from ..errors import USER_ERRORS, text_of

logger = logging.getLogger("potstill")

Train = Callable[[Sequence[str]], int]
"""Does what the command line does with these arguments; returns its exit status."""


@dataclass
class Runner:
    """Trains run folders that are not finished.

    Attributes:
        train: for runs in this process.
        program: the file that does the same in a process of its own.
        more: arguments of every run beside its folder, such as plugins.
        jobs: how many run at a time.
        failures: folder -> why its run ended without a result.
    """

    train: Train
    program: str
    more: Sequence[str] = ()
    jobs: int = 1
    failures: dict[Path, str] = field(default_factory=dict)

    @property
    def threads(self) -> int:
        """Threads of each run: the processes share the cores."""
        return max(1, torch.get_num_threads() // self.jobs)

    def run(self, folders: Sequence[Path]) -> None:
        """Go on with the runs of these folders, each to its end.

        Raises:
            KeyboardInterrupt: a run was interrupted; all can go on.
        """
        left = [folder for folder in folders if not (folder / SUMMARY).exists()]
        for folder in left:
            self.failures.pop(folder, None)
        if self.jobs == 1 or len(left) < 2:
            for folder in left:
                self._here(folder)
        elif left:
            self._beside(left)

    def _here(self, folder: Path) -> None:
        logger.info("== %s", folder.name)
        try:
            status = self.train(self._arguments(folder))
        except USER_ERRORS as error:
            status, self.failures[folder] = 2, text_of(error)
            logger.warning("%s failed: %s", folder.name, text_of(error))
        if status == INTERRUPTED:
            raise KeyboardInterrupt

    def _arguments(self, folder: Path) -> list[str]:
        return ["--resume-from", str(folder), *self.more]

    def _beside(self, folders: Sequence[Path]) -> None:
        """Run processes; where this one is interrupted, so are they, and it waits for their last checkpoints."""
        started: list[subprocess.Popen[str]] = []

        def one(folder: Path) -> None:
            logger.info("== %s begins; its log is %s", folder.name, folder / "run.log")
            process = self._start(folder)
            started.append(process)
            _, said = process.communicate()
            if process.returncode not in (0, INTERRUPTED):
                self.failures[folder] = said.strip().rpartition("\n")[2] or f"exit status {process.returncode}"
                logger.warning("%s failed: %s", folder.name, self.failures[folder])
            elif process.returncode == 0:
                logger.info("== %s is finished", folder.name)

        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                waiting = [pool.submit(one, folder) for folder in folders]
                for task in waiting:
                    task.result()
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in started:
                    process.terminate()
                raise
        if any(process.returncode == INTERRUPTED for process in started):
            raise KeyboardInterrupt

    def _start(self, folder: Path) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        return subprocess.Popen(
            [sys.executable, self.program, *self._arguments(folder)],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
