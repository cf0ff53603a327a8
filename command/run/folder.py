"""The run folder: log, metrics, schedule, checkpoints and summary of one run, with a link to the newest."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from potstill.compression.files.checkpoints import CheckpointError, write_atomically
from potstill.thinning.files.atomic import remove_parts
from potstill.thinning.files.regular import NotRegularError, open_regular
from potstill.thinning.files.text import csv_text

from .lock import hold, release
from .log_text import OneLine

logger = logging.getLogger("potstill")

METRICS = ("epoch", "train_loss", "train_top1", "val_loss", "val_top1", "lr", "zeros", "gone")


class RunFolder:
    """A folder for one run, or that of a run which goes on."""

    def __init__(self, path: Path) -> None:
        """Use a folder, alone; it is made if it does not exist.

        Raises:
            CheckpointError: it cannot be made or written to, another process uses it, or its log is a link.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            hold(path)
            remove_parts(path)  # nobody else writes here now
            handler = _Log(path / "run.log")
        except NotRegularError as error:
            release(path)
            raise CheckpointError(str(error)) from error
        except OSError as error:
            release(path)
            raise CheckpointError(f"{path}: cannot write the run folder: {error.strerror}") from error
        self._latest: Path | None = None
        self._made = False
        handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
        self._handler = handler
        logging.getLogger().addHandler(handler)

    @classmethod
    def new(cls, out_dir: Path, name: str | None) -> RunFolder:
        """Make `out_dir/<name>_<date>-<time>`; `lead` lets `out_dir/latest` lead there."""
        stamp = datetime.now().strftime("%Y.%m.%d-%H%M%S")
        base = f"{name}_{stamp}" if name else stamp
        path, again = out_dir / base, 1
        while not _make(path):
            again += 1
            path = out_dir / f"{base}_{again}"
        folder = cls(path)
        folder._latest, folder._made = out_dir / "latest", True
        return folder

    def lead(self) -> None:
        """Let `latest` lead to this run: only once it has a checkpoint, for that is what one goes on with."""
        if self._latest is not None:
            self._link(self._latest)
            self._latest = None

    def discard(self) -> None:
        """Remove the folder of a run that never began, if it was made for it."""
        self.close()
        if self._made:
            shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        """Stop writing the log, and let others use the folder."""
        logging.getLogger().removeHandler(self._handler)
        with suppress(OSError):  # what could not be written cannot be flushed either
            self._handler.close()
        release(self.path)

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.path / "checkpoint.pt"

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch."""
        return self.path / "best.pt"

    @property
    def best_final(self) -> Path:
        """The checkpoint of the most accurate epoch after compression was complete."""
        return self.path / "best_final.pt"

    @property
    def schedule(self) -> Path:
        """The schedule as it was given."""
        return self.path / "schedule.yaml"

    def write_text(self, name: str, text: str) -> Path:
        """Write a small file whole or not at all."""
        write_atomically(self.path / name, text.encode())
        return self.path / name

    def write_json(self, name: str, value: Any) -> Path:
        """Write a value as JSON."""
        return self.write_text(name, json.dumps(value, indent=1) + "\n")

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `metrics.csv`: a row an epoch, the columns of `METRICS` and one for each part of the loss."""
        columns = list(dict.fromkeys([*METRICS, *(key for row in rows for key in row)]))
        self.write_text("metrics.csv", csv_text([columns, *([row.get(name, "") for name in columns] for row in rows)]))

    def record_environment(self, arguments: Sequence[str]) -> None:
        """Write what is needed to run the same again: command, versions, hardware."""
        import torchvision

        cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        self.write_json(
            "environment.json",
            {
                "command": ["compress_classifier.py", *arguments],
                "python": platform.python_version(),
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
                "platform": platform.platform(),
                "processors": os.cpu_count(),
                "threads": torch.get_num_threads(),
                "cuda": cuda,
            },
        )

    def _link(self, link: Path) -> None:
        try:
            new = link.with_name(link.name + ".new")
            new.unlink(missing_ok=True)
            new.symlink_to(self.path.name, target_is_directory=True)
            if not link.exists() or link.is_symlink():
                os.replace(new, link)
            else:
                new.unlink()
                raise FileExistsError(errno.EEXIST, "a real file or folder of that name")
        except OSError as error:  # a file system without links, or a real file of that name
            logger.warning("%s does not lead to this run: %s", link, error.strerror)


class Followed(RunFolder):
    """The folder of a run in a process that does not write to it."""

    def __init__(self, path: Path) -> None:
        """Know the folder."""
        self.path = path

    def lead(self) -> None:
        """Do nothing: the first process does it."""

    def discard(self) -> None:
        """Do nothing: the first process does it."""

    def close(self) -> None:
        """Do nothing: nothing was opened."""

    def write_text(self, name: str, text: str) -> Path:
        """Return where the first process writes it."""
        return self.path / name


def _make(path: Path) -> bool:
    """Make a folder; False if it is there already, so that two runs that start at once have each its own."""
    try:
        path.mkdir(parents=True)
    except OSError as error:
        if os.path.lexists(path):
            return False
        raise CheckpointError(f"{path}: cannot write the run folder: {error.strerror}") from error
    return True


class _Log(logging.FileHandler):
    """The log of a run. That it cannot be written (a full disk) is said once, and does not end the run."""

    _told = False

    def __init__(self, path: Path) -> None:
        """Open the log."""
        super().__init__(path, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> Any:
        """Open the file, or go on with it: of this folder, not where a link in it leads."""
        return open_regular(Path(self.baseFilename), "a", encoding=self.encoding, errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            sys.stderr.write(f"warning: {self.baseFilename} cannot be written: {error.strerror}\n")
