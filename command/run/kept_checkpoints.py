"""`--keep-checkpoints N`: the checkpoints of the last N epochs, beside the newest."""

from __future__ import annotations

import re
from contextlib import suppress

from .ranks import leads
from .session import Session

NAME = re.compile(r"checkpoint_(\d{4,9})\.pt(\.previous)?")


def keep_checkpoint(run: Session, epoch: int) -> None:
    """Write the checkpoint of an epoch that ended, and remove those of epochs that are too long ago."""
    count = run.options.output.keep_checkpoints
    if count == 0:
        return
    run.save(run.folder.path / f"checkpoint_{epoch:04}.pt")
    if leads():
        for file in run.folder.path.iterdir():
            found = NAME.fullmatch(file.name)
            if found and int(found[1]) <= epoch - count:
                with suppress(OSError):  # it is in nobody's way
                    file.unlink()
