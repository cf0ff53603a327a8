"""`--greedy`: in each step every set of coupled channels is made smaller on trial, and the best trial is kept.

Distiller's greedy filter pruning (Abbasi-Asl and Yu 2017, NetAdapt), on coupled channels of any network. It can be
interrupted: what was tried is kept after each trial, and trials are functions of the options and the step.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn

from potstill.thinning import ChannelGraph, Recipe, count_macs

from ..cli.options import Options
from ..run.evaluation import classification_loss, evaluate
from ..run.finish import finish
from ..run.first_lines import warn_if_untrained
from ..run.optimizers import make_optimizer
from ..run.prepare import prepare
from ..run.session import Session
from ..run.size_report import latencies
from .record import Record, Size, Step, must_fit
from .search import Candidate, Tried, best_of, candidates, without

logger = logging.getLogger("potstill")
LINE = "step %d: without %d channels of %s: Top1 %.2f, %.1f %% of the MACs%s"


def greedy(options: Options) -> None:
    """Prune greedily down to the goal, then test, thin, prove and report as after a training.

    On Ctrl-C it says how to go on, with exit status 130.

    Raises:
        CheckpointError: the folder that goes on is damaged.
        ThinningError: a smaller network computes something else than with zeros.
    """
    path = options.start.resume_from
    if path is not None and not path.is_dir():  # a trained network to begin with: epochs are steps here
        options = replace(options, start=replace(options.start, reset_optimizer=True))
    run = prepare(options)
    try:
        _Search(run).to_goal()
        finish(run)
    except KeyboardInterrupt:
        logger.info("stopped; go on with: compress-classifier --resume-from %s", run.folder.path)
        raise SystemExit(130) from None
    finally:
        run.folder.close()


class _Search:
    """The steps of a run; `run.epoch` counts them."""

    def __init__(self, run: Session) -> None:
        self.run, self.options = run, run.options.greedy
        record = Record.of(run.folder) if run.epoch else None
        self.record = record or Record(self._size())
        self._best: tuple[Tried, nn.Module, Recipe] | None = None

    def to_goal(self) -> None:
        """Make steps until the network is as small as asked."""
        run = self.run
        if run.epoch == 0 or not self.record.steps:
            warn_if_untrained(run)
        if len(self.record.steps) == run.epoch - 1 and self.record.tried:  # killed between its two files
            self._enter(max(self.record.tried, key=lambda tried: tried.rank))
        must_fit(self.record, run.epoch)
        if not run.folder.checkpoint.exists():
            run.save()
        self.record.write(run.folder)
        while not self._is_reached() and self._step():
            pass

    def _is_reached(self) -> bool:
        density, latency = self.options.greedy_target_density, self.options.greedy_target_latency
        now = self.record.steps[-1] if self.record.steps else None
        small = density is None or (now is not None and now.density <= density) or density == 1
        fast = latency is None or (now is not None and now.latency <= latency) or latency == 1
        return small and fast

    def _step(self) -> bool:
        """Make one step; return False if no channel can go any more, which is said."""
        run = self.run
        graph, found = candidates(run.model, run.example, self.options.greedy_pruning_step)
        if not found:
            logger.warning("the goal is not reached: no channel can be removed any more")
            return False
        by_name = {one.name: one for one in found}
        logger.info("step %d: %d sets of coupled channels to try", run.epoch + 1, len(found))
        best = best_of(found, self.record.tried, lambda one: self._attempt(graph, one))
        if self._best is None or self._best[0].name != best.name:  # tried before an interruption: done again
            self._try(graph, by_name[best.name])
        assert self._best is not None
        _, smaller, recipe = self._best
        self._best = None
        recipe.apply(run.model, run.scheduler.masks, run.optimizer)
        run.model.load_state_dict(smaller.state_dict())
        run.scheduler.recipes.append(recipe)
        run.scheduler.forget_graph()
        run.epoch += 1
        run.save()
        self._enter(best)
        return True

    def _enter(self, best: Tried) -> None:
        """Write the step into the record, and say what it was."""
        size, first = self._size(), self.record.first
        density, latency = size.macs / first.macs, size.latency / first.latency if first.latency else 0.0
        number = len(self.record.steps) + 1
        scores = (best.top1, best.top5, best.loss)
        self.record.steps.append(Step(number, best.name, best.removed, *scores, size.macs, density, latency))
        self.record.tried.clear()
        self.record.write(self.run.folder)
        measured = f", {100 * latency:.1f} % of the latency" if latency else ""
        logger.info(LINE, number, best.removed, best.name, best.top1, 100 * density, measured)

    def _attempt(self, graph: ChannelGraph, candidate: Candidate) -> Tried:
        """Try a candidate, and remember it on the disk."""
        tried = self._try(graph, candidate)
        self.record.tried.append(tried)
        self.record.write(self.run.folder)
        return tried

    def _try(self, graph: ChannelGraph, candidate: Candidate) -> Tried:
        """Remove, fine-tune and test; the best network so far is kept."""
        run = self.run
        torch.manual_seed(run.options.training.seed + run.epoch)
        masks = {name: entry.mask.clone() for name, entry in run.scheduler.masks.items() if entry.mask is not None}
        smaller, recipe = without(run.model, graph, candidate, run.example, masks)
        self._fine_tune(smaller, masks)
        scores = evaluate(smaller, run.data.validation, run.options.training.batch_size, run.device)
        tried = Tried(candidate.name, len(candidate.channels), *scores.scores())
        if self._best is None or tried.rank > self._best[0].rank or tried.name == self._best[0].name:
            self._best = (tried, smaller, recipe)
        return tried

    def _fine_tune(self, model: nn.Module, masks: dict[str, Tensor]) -> None:
        """Train on the epochs of this step; what masks hide stays zero."""
        run, parameters = self.run, dict(model.named_parameters())
        optimizer = make_optimizer(run.options.training, model)
        model.train()
        for images, labels in self._batches():
            inputs = images.to(run.device, memory_format=torch.channels_last)
            loss, _ = classification_loss(model(inputs), labels.to(run.device), run.options.training.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for name, mask in masks.items():
                    parameters[name].mul_(mask)
        model.eval()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        data, batch = self.run.data.train, self.run.options.training.batch_size
        count = data.batch_count(batch)
        if self.options.greedy_finetuning_policy == "linear-grow":
            density = self.record.steps[-1].density if self.record.steps else 1.0
            count = max(1, round((1 - density) * count))
        for epoch in range(self.options.greedy_ft_epochs):
            yield from islice(data.batches(batch, self.run.epoch * self.options.greedy_ft_epochs + epoch), count)

    def _size(self) -> Size:
        """Return what the network costs now."""
        run, latency = self.run, 0.0
        if self.options.greedy_target_latency is not None:
            latency = latencies({"now": run.model}, run.example)["now"]["1"]["median"]
        return Size(round(count_macs(run.model, run.example[:1])), latency)
