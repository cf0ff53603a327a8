"""What happens around an epoch: the dense accuracy before compression begins; metrics, lines and checkpoints after."""

from __future__ import annotations

import logging

import torch

from potstill.compression import masks_text, sparsity_text
from potstill.models.datasets import Split

from .averages import averaged
from .best_epochs import Score
from .confusion import confusion_matrix, confusion_text
from .evaluation import Meter, evaluate
from .finite import check_epoch
from .kept_checkpoints import keep_checkpoint
from .local_state import pooled
from .network_size import acting_gates, parameter_count
from .session import Session

logger = logging.getLogger("potstill")

EPOCH_LINE = (
    "epoch %d: train Loss: %.4f Top1: %.2f | validation ==> Top1: %.3f    Top5: %.3f    Loss: %.3f |"
    " zeros %.2f %%, gone %.2f %%%s"
)


def before_epoch(run: Session) -> None:
    """Start the clock; just before compression begins, test the network that is dense yet, if it was trained at all."""
    run.clock.start()
    if run.compresses_from(run.epoch) and (run.epoch > 0 or run.trained):
        run.dense_val_top1 = evaluate_together(run, run.data.validation).accuracy()
        if run.options.output.test:
            run.dense_top1 = test(run, run.data.test).accuracy()
            logger.info("dense network before compression: test Top1 %.2f", run.dense_top1)


def evaluate_together(run: Session, split: Split) -> Meter:
    """Loss and accuracy over a split, each process a part of it, with the running statistics of the first."""
    with averaged(run.scheduler):
        run.ranks.follow_first(run.model.buffers())
        return pooled(evaluate(run.model, split, run.options.training.batch_size, run.device), run.ranks)


def test(run: Session, split: Split) -> Meter:
    """Return loss and accuracy of the network as it is."""
    with run.watching("test"):
        return evaluate_together(run, split)


def print_scores(run: Session, scores: Meter | None) -> None:
    """Print the sparsity table and the scores on the test images, and the confusion matrix where it was asked for."""
    form, batch = run.options.output.table, run.options.training.batch_size
    logger.info("%s", sparsity_text(run.model, form))
    if scores is None:
        return
    logger.info("test ==> Top1: %.3f    Top5: %.3f    Loss: %.3f", *scores.scores())
    if run.options.output.confusion:
        own = confusion_matrix(run.model, run.data.test, len(run.data.classes), batch, run.device)
        counts = torch.stack(run.ranks.all(own.cpu())).sum(0)
        logger.info("%s", confusion_text(counts, run.data.classes, form))


def after_epoch(run: Session, validation: Meter) -> None:
    """Write the metrics, print the epoch's lines, keep the best, and write the checkpoint for the next epoch."""
    epoch, trained = run.epoch, pooled(run.meter, run.ranks)
    check_epoch(trained, epoch)
    size = run.sizes.measure()
    row = {
        "epoch": epoch,
        "train_loss": trained.mean_loss(),
        "train_top1": trained.accuracy(),
        "val_loss": validation.mean_loss(),
        "val_top1": validation.accuracy(),
        "lr": run.rate,
        "zeros": size.zeros,
        "gone": size.gone,
        **trained.mean_parts(),
        **run.scheduler.metrics(),
    }
    if trained.skipped:
        row["skipped"] = trained.skipped
    run.rows.append(row)
    run.folder.write_metrics(run.rows)
    if run.events:
        run.events.write(row, run.model)
    scores = (row["train_loss"], row["train_top1"], *validation.scores())
    logger.info(EPOCH_LINE, epoch, *scores, size.zeros, size.gone, run.clock.told(run.epochs - epoch - 1))
    if gates := acting_gates(run.scheduler):
        logger.info("  %s", gates)
    if run.options.output.masks_sparsity:
        form = run.options.output.table
        logger.info("%s", sparsity_text(run.model, form))
        logger.info("%s", masks_text(run.model, run.scheduler.masks, form))
    nonzero = round((1 - size.zeros / 100) * parameter_count(run.model))
    score = Score(epoch, validation.accuracy(), validation.accuracy(5), size.zeros / 100, nonzero)
    best = run.best.add(score)
    for line in run.best.news(run.options.output.num_best_scores):
        logger.info("%s", line)
    if run.early_stopping:
        run.early_stopping.after_epoch(epoch, trained.mean_loss(), validation.mean_loss())
    run.epoch, run.minibatch = epoch + 1, 0
    if run.options.output.final == "best" and run.compressed_by(epoch) and run.best.is_final(score, run.compressed_by):
        run.save(run.folder.best_final)
    keep_checkpoint(run, epoch)
    if best:  # first, so that a run killed in between makes it again
        run.save(run.folder.best)
    run.save()


def choose_best(run: Session) -> None:
    """Say why early stopping ended the training, and go on with the weights of the best epoch."""
    if run.early_stopping:
        run.early_stopping.restore_best()
        logger.info("%s", run.early_stopping)
