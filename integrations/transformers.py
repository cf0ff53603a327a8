"""A schedule in the Hugging Face Trainer, and thinned models beside `save_pretrained`.

`Trainer(callbacks=[CompressionCallback("schedule.yaml", example_inputs=batch)])`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'this module needs the extra "transformers": pip install "potstill[transformers]"'
    ) from error

from potstill.compression import CompressionScheduler, Thinner
from potstill.compression.files.checkpoints import load_state, save_state
from potstill.thinning import Recipe

from .driver import Driver, Schedule, thin_options
from .thinned_transformers import load_thinned, save_thinned

__all__ = ["CompressionCallback", "load_thinned", "save_thinned"]

logger = logging.getLogger("potstill")
STATE = "compression.pt"


class CompressionCallback(TrainerCallback):
    """Carries a schedule out during `Trainer.train`, and goes on with it from the Trainer's checkpoints.

    Its state lies in each checkpoint's folder, as `compression.pt`. Evaluation between epochs sees the network of its
    epoch; the terms of the loss are logged by name. Learning rates are the Trainer's: it sets them at each step.

    Attributes:
        recipe: all that thinning removed, after training.
    """

    def __init__(
        self,
        schedule: Schedule,
        example_inputs: Any = None,
        *,
        thin: bool = False,
        allow_inexact: bool = False,
        round_to: int = 1,
        add_bias: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        """Take the schedule.

        Args:
            schedule: a file's path, or what such a file holds.
            example_inputs: a batch as the model takes it (a dict), to find which channels belong together.
            thin: remove dead channels at the end of training, and prove it.
            allow_inexact: with `thin`, also where the function changes a little (see `thin`).
            round_to: with `thin`, numbers of channels stay multiples of this.
            add_bias: with `thin`, layers get a bias where it takes the constants of channels that go.
            checkpoint: the folder given to `train(resume_from_checkpoint=...)`, where it is none of `output_dir`.
        """
        options = thin_options(thin, allow_inexact=allow_inexact, round_to=round_to, add_bias=add_bias)
        self._driver = Driver(schedule, example_inputs, options)
        self._checkpoint = checkpoint
        self.recipe: Recipe | None = None

    def __repr__(self) -> str:
        """Return what it carries out, and how far it is."""
        return repr(self._driver)

    @property
    def scheduler(self) -> CompressionScheduler:
        """The scheduler, once training has begun."""
        return self._driver.scheduler

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Let the model take the weights of one that was thinned during training."""
        if isinstance(kwargs.get("model"), nn.Module):
            self._driver.follow_shapes(kwargs["model"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the scheduler, take up the state of a checkpoint, and follow the optimizer's steps."""
        optimizer = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])
        model = kwargs["model"]
        self._driver.build(model, optimizer)
        if any(policy.__class__.__name__ == "LRPolicy" for policy in self.scheduler.policies):
            raise ValueError(
                "the schedule has lr_schedulers, but the Trainer sets its own learning rate at each step: take them"
                " out, and choose lr_scheduler_type in TrainingArguments"
            )
        thinners = [policy for policy in self.scheduler.policies if isinstance(policy, Thinner)]
        if any(policy.options["add_bias"] for policy in thinners):
            raise ValueError(
                "the schedule's Thinner has add_bias, but the Trainer cannot resume with a bias that is new: it does"
                " not load it, and groups biases apart. Take it out, and add_bias to CompressionCallback(thin=True)"
            )
        if thinners and args.world_size > 1:
            raise ValueError(
                "the schedule's Thinner acts in mid-training, but on several processes the Trainer trains through a"
                " wrapper that keeps the old shapes: take it out, and use CompressionCallback(thin=True), which thins"
                " at the end"
            )
        if thinners and args.load_best_model_at_end:
            raise ValueError(
                "the schedule's Thinner acts in mid-training, and load_best_model_at_end would load weights of before"
                " into what is left: take one of them out (CompressionCallback(thin=True) thins after that)"
            )
        if state.global_step:
            self._driver.load_state_dict(self._stored(args, state))
            self._driver.follow_sizes(model)
        self._driver.start(optimizer, _steps_per_epoch(args, state, kwargs["train_dataloader"]), state.global_step)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin an epoch, or go on with one."""
        self._driver.begin_epoch()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End an epoch."""
        self._driver.end_epoch()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put the terms of the loss, and what policies measure, beside the Trainer's own values."""
        logs = kwargs.get("logs")
        if isinstance(logs, dict) and "loss" in logs:
            terms = {name: float(value.detach().mean()) for name, value in self._driver.components().items()}
            found = {f"compression/{name}": value for name, value in {**terms, **self.scheduler.metrics()}.items()}
            logs.update(found)
            state.log_history[-1].update(found)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put the schedule's state into the checkpoint's folder; all processes ask for it, the first one writes."""
        folder, found = _folder(args, state), self._driver.state_dict()
        if state.is_world_process_zero and folder.is_dir():
            save_state(folder / STATE, found)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Finish, and thin if asked to; with `load_best_model_at_end` what the schedule had made of the best one."""
        optimizer = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])
        best = state.best_model_checkpoint if args.load_best_model_at_end else None
        if best is not None and Path(best) != _folder(args, state):
            self._driver.go_back(_read(Path(best), "load_best_model_at_end took weights that its masks do not fit"))
            logger.warning(
                "load_best_model_at_end: the network is that of %s, as far as the schedule had come by then", best
            )
        self.recipe = self._driver.finish(optimizer)

    def _stored(self, args: TrainingArguments, state: TrainerState) -> Mapping[str, Any]:
        """Read the state of the checkpoint that training goes on from.

        Raises:
            ValueError: it is not where checkpoints of this run lie.
        """
        folder = _folder(args, state) if self._checkpoint is None else Path(self._checkpoint)
        return _read(
            folder,
            f"training goes on at step {state.global_step}, and the schedule would begin again. Give"
            " CompressionCallback(checkpoint=...) the folder that train() resumes from",
        )


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Return where the Trainer puts the checkpoint of this step."""
    return Path(args.output_dir or "trainer_output", f"checkpoint-{state.global_step}")


def _read(folder: Path, without: str) -> Mapping[str, Any]:
    """Read the schedule's state beside a checkpoint.

    Raises:
        ValueError: it is not there; `without` says what that means.
    """
    if not (folder / STATE).is_file():
        raise ValueError(f"{folder / STATE} is not there: {without}")
    return load_state(folder / STATE)


def _steps_per_epoch(args: TrainingArguments, state: TrainerState, loader: Any) -> int:
    """Return the optimizer's steps of an epoch, as the Trainer counts them."""
    try:
        batches = len(loader)
    except TypeError:  # data of unknown length are one epoch of max_steps
        return int(state.max_steps)
    return max(1, -(-batches // args.gradient_accumulation_steps))
