"""Train an image classifier under a compression schedule, thin it, and prove that it stayed the same.

The training loop is here to be read and copied: `train_epoch` is all that a loop of your own needs. What it leans on
(options, run folder, reports) is in `command/`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from potstill.command.cli.interrupts import INTERRUPTED, end_at_once, handle, handled, interrupt

if __name__ == "__main__":
    handle(end_at_once)

# Before torch is loaded: threads that spin while they wait made a step of GoogLeNet take 5 s instead of 0.7 s where
# another program had one of two cores; where both are free, waiting passively costs about a tenth.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from tqdm import tqdm

from potstill.command.cli.options import Options, parse
from potstill.command.cli.streams import prepare_streams
from potstill.command.errors import one_line
from potstill.command.modes import run_mode, trains
from potstill.command.run.bad_numbers import Watch
from potstill.command.run.epochs import after_epoch, before_epoch, choose_best, evaluate_together
from potstill.command.run.evaluation import Meter, classification_loss
from potstill.command.run.finish import finish
from potstill.command.run.first_lines import tell_start
from potstill.command.run.lock import release_all
from potstill.command.run.log_text import set_up_console
from potstill.command.run.prepare import prepare
from potstill.command.run.ranks import joined, leads
from potstill.command.run.session import Session
from potstill.command.sweep.mode import last_words, sweep_runs

logger = logging.getLogger("potstill")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status (2 for what the user can mend, with one line that says what)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    prepare_streams()
    try:
        with one_line("--debug" in arguments), handled(interrupt):
            set_up_console("--debug" in arguments)
            options = parse(arguments)
            set_up_console("--debug" in arguments, options.output.table)
            if not trains(options):
                if leads():
                    run_mode(options)
                return 0
            if options.sweep.sweep:
                return last_words(sweep_runs(options, train_again, __file__))
            return run_training(options, arguments)
    finally:
        release_all()


def train_again(arguments: Sequence[str]) -> int:
    """Train as a call with these arguments does; errors come through."""
    return run_training(parse(arguments), arguments)


def run_training(options: Options, arguments: Sequence[str]) -> int:
    """Train as the options ask, in a run folder; return the exit status."""
    with joined(options.training.device):
        session = prepare(options)
        session.folder.record_environment(arguments)
        tell_start(session)
        try:
            return train(session)
        finally:
            session.folder.close()


def train(run: Session) -> int:
    """Train from where the run stands to its last epoch, or until early stopping; validate after each; thin, report."""
    if run.options.output.save_untrained_model and run.steps == 0:
        run.save(run.folder.path / "untrained.pt")
    if not run.ranks.first(run.folder.checkpoint.exists()):
        run.save()
    with stop_on_interrupt(run):
        while run.epoch < run.epochs and not run.ended:
            with run.watching("train"):
                train_epoch(run, run.epoch)
            if run.stopped:
                return interrupted(run)
            with run.watching("valid"):
                scores = evaluate_together(run, run.data.validation)
            run.rate = run.optimizer.param_groups[0]["lr"]
            metrics = {"min": scores.mean_loss(), "max": scores.accuracy()}
            run.scheduler.on_epoch_end(run.epoch, run.optimizer, metrics, run.minibatches)
            after_epoch(run, scores)
        if run.stops():
            return interrupted(run)
    try:
        choose_best(run)
        finish(run)
    except KeyboardInterrupt:
        return interrupted(run, trained=True)
    return 0


def train_epoch(run: Session, epoch: int) -> None:
    """Train for one epoch, or the rest of one that was interrupted."""
    steps, optimizer, scheduler = run.minibatches, run.optimizer, run.scheduler
    if run.minibatch == 0:
        before_epoch(run)
        run.meter = Meter()
        scheduler.on_epoch_begin(epoch, optimizer, steps)
    run.network.train()
    batches = run.data.train.batches(run.options.training.batch_size, epoch, run.minibatch)
    for images, labels in progress(batches, run):
        step = run.minibatch
        images, labels = images.to(run.device, memory_format=torch.channels_last), labels.to(run.device)

        scheduler.on_minibatch_begin(epoch, step, steps, optimizer)
        watch = Watch(run, images)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.options.training.amp):
            loss, logits = classification_loss(run.network(images), labels, run.options.training.label_smoothing)
        share = loss * run.weight(len(labels))  # of the minibatch, where processes share it
        total, parts = scheduler.before_backward_pass(epoch, step, steps, share, optimizer, return_loss_components=True)
        optimizer.zero_grad()
        if watch.loss_is_good(total, parts):
            total.backward()
        scheduler.before_parameter_optimization(epoch, step, steps, optimizer)
        if watch.gradients_are_good():
            optimizer.step()
        scheduler.on_minibatch_end(epoch, step, steps, optimizer)

        if watch.good:
            run.meter.add(loss.item(), logits, labels, {name: value.item() for name, value in parts})
        run.stepped()
        due = run.checkpoint_is_due()
        if run.stopped:
            return
        if due and step + 1 < steps:
            run.save()


def progress(batches: Iterator[Any], run: Session) -> Iterator[Any]:
    """Yield a progress bar with loss and accuracy; silent where the output is not a terminal."""
    disable = None if leads() else True
    bar = tqdm(batches, f"epoch {run.epoch}", run.minibatches, initial=run.minibatch, leave=False, disable=disable)
    for batch in bar:
        yield batch
        if not bar.disable and run.minibatch % run.options.output.print_freq == 0:
            bar.set_postfix(loss=f"{run.meter.mean_loss():.3f}", top1=f"{run.meter.accuracy():.2f}", refresh=False)


@contextmanager
def stop_on_interrupt(run: Session) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP end the run after the current minibatch; a second one ends it at once."""

    def stop(number: int, frame: Any) -> None:
        if run.stop and run.ranks.size == 1:  # torchrun passes on what all processes got already
            raise KeyboardInterrupt
        run.stop = True

    with handled(stop):
        yield


def interrupted(run: Session, trained: bool = False) -> int:
    """Leave a checkpoint of the very minibatch (that of the last epoch is there), and say how to go on."""
    if not trained:
        run.save()
    where = "the end" if trained else f"epoch {run.epoch} after minibatch {run.minibatch} of {run.minibatches}"
    logger.info("stopped at %s", where)
    logger.info("go on with: compress-classifier --resume-from %s", run.folder.path)
    return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
