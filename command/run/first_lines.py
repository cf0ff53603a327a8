"""What a training begins with: one line that says what runs where, and what of the schedule it will not reach."""

from __future__ import annotations

import logging

from ..modes.policy_table import idle, late
from .session import Session

logger = logging.getLogger("potstill")


def tell_start(run: Session) -> None:
    """Say what is trained, and warn of policies that begin or end after the last epoch, or do nothing."""
    options, data = run.options, run.data
    logger.info(
        "trains %s on %s (%s images) %s, on %s; the run is in %s",
        options.data.arch,
        data.name,
        f"{len(data.train):,}",
        _span(run),
        run.device,
        run.folder.path,
    )
    for policy in run.scheduler.policies:
        name, window = policy.name, policy.window
        args = getattr(policy, "args", None)
        for remark in (late(name, window, run.epochs, run.minibatches), idle(name, args, window, run.minibatches)):
            if remark:
                logger.warning("%s", remark)


def _span(run: Session) -> str:
    """Return where training begins and ends."""
    if run.ended:
        return "no further: early stopping ended this run"
    if run.steps == 0:
        return f"for {run.epochs} epoch{'' if run.epochs == 1 else 's'}"
    minibatch = f", minibatch {run.minibatch}," if run.minibatch else ""
    return f"from epoch {run.epoch}{minibatch} to {run.epochs}"


def warn_if_untrained(run: Session) -> None:
    """Warn where a network is to be measured that nothing was taught yet."""
    if not (run.options.start.resume_from or run.trained):
        logger.warning("the network is not trained: --resume-from gives one that is")
