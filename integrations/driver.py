"""What all frameworks need: a scheduler made when the optimizer is there, run by its steps, stored and resumed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from potstill.compression import CheckpointError, CompressionScheduler, dict_config, file_config
from potstill.compression.files.checked import Field, reading
from potstill.compression.sharded_state import gathered
from potstill.thinning import Recipe, resize_to
from potstill.thinning.attributes import size_problem
from potstill.thinning.module_sizes import set_size
from potstill.thinning.running.sharded import refuse_sharded

Schedule = str | os.PathLike[str] | Mapping[str, Any]
PLAIN = {"allow_inexact": False, "round_to": 1, "add_bias": False}
"""What thinning does where nothing else is said."""
STATE = "the state of the schedule"
"""What errors call it."""


class Driver:
    """Carries a schedule out in a framework's training loop.

    The framework's callback calls `build` when the optimizer exists, `start` when all states are loaded, `begin_epoch`
    and `end_epoch`; everything between follows the optimizer's steps.

    Attributes:
        scheduler: the scheduler, once it is built.
    """

    def __init__(self, schedule: Schedule, example_inputs: Any = None, thin: Mapping[str, Any] | None = None) -> None:
        """Take a schedule (a file's path, or what such a file holds) and inputs of the model to trace it with.

        `thin`: what thinning at the end takes; None: no thinning.
        """
        self.schedule, self.example_inputs, self.thin = schedule, example_inputs, thin
        self._scheduler: CompressionScheduler | None = None
        self._stored: Mapping[str, Any] | None = None
        self._ended = -1

    def __repr__(self) -> str:
        """Return what the callback carries out, and how far it is."""
        if self._scheduler is not None:
            return f"CompressionCallback with {self._scheduler!r}"
        what = self.schedule if isinstance(self.schedule, (str, os.PathLike)) else "a schedule"
        return f"CompressionCallback of {what}, before training"

    @property
    def scheduler(self) -> CompressionScheduler:
        """The scheduler.

        Raises:
            RuntimeError: training has not begun.
        """
        if self._scheduler is None:
            raise RuntimeError("there is no scheduler before training begins: the optimizer does not exist yet")
        return self._scheduler

    def follow_shapes(self, model: nn.Module) -> None:
        """Let a model take weights of a thinned one: it is resized just before they are loaded."""
        model.register_load_state_dict_pre_hook(_resize)

    def thin_as(self, state: Mapping[str, Any], model: nn.Module) -> None:
        """Remove from a dense model what had been removed when a checkpoint's state was stored.

        Raises:
            CheckpointError: it is no such state, or of another model, or of this one before it was thinned.
        """
        with reading(STATE):
            stored = _recipes(state)
            done = self._scheduler.recipes if self._scheduler is not None and self._scheduler.model is model else []
            if len(stored) < len(done):
                raise CheckpointError(
                    "the checkpoint holds the network before it was thinned, and this one was thinned since: load it"
                    " into a new one"
                )
            for recipe in stored[len(done) :]:
                recipe.apply(model)

    def follow_sizes(self, model: nn.Module) -> None:
        """Give a model whose weights were loaded the sizes that its own code keeps, as the stored recipes say.

        Raises:
            CheckpointError: the state is of another model, or has attributes that count no channels.
        """
        with reading(STATE):
            for change in (change for recipe in _recipes(self._stored) for change in recipe.attributes):
                module = model.get_submodule(change.module)
                if problem := size_problem(module, change.name, change.new, change.index):
                    raise CheckpointError(f"{change.module}.{change.name} {problem}")
                set_size(module, change.name, change.new, change.index)

    def build(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Make the scheduler of a model and its optimizer.

        Raises:
            ScheduleError: the schedule has mistakes: all of them, with their lines.
            ThinningError: a model whose parameters are sharded is to be thinned at the end.
        """
        if self.thin is not None:
            refuse_sharded(model)
        goes_on = None if self._stored is None else 0
        if isinstance(self.schedule, Mapping):
            made = dict_config(model, optimizer, dict(self.schedule), None, goes_on, example_inputs=self.example_inputs)
        else:
            made = file_config(model, optimizer, Path(self.schedule), None, goes_on, example_inputs=self.example_inputs)
        self._scheduler = made

    def start(self, optimizer: Optimizer, steps_per_epoch: int, steps: int) -> None:
        """Begin to follow the optimizer's steps, of which `steps` were made before.

        Raises:
            ValueError: training goes on from a checkpoint that holds no state of the schedule (CheckpointError: a
                damaged one).
        """
        if steps and self._stored is None:
            raise ValueError(
                f"training goes on at step {steps}, but its checkpoint holds no state of the schedule: it would begin"
                " again, and pruned weights would come back. Resume from a checkpoint that was written with this"
                " callback, or start a new training from the weights alone"
            )
        ended = None
        if self._stored is not None:
            ended = Field(self._stored, STATE)["ended"].integer()
            self.scheduler.load_state_dict(Field(self._stored, STATE)["scheduler"].value)
        attachment = self.scheduler.attach(optimizer, steps_per_epoch, steps, calls_epochs=True)
        if ended is not None:
            attachment.ended = ended
        self._stored = None

    def begin_epoch(self) -> None:
        """Begin an epoch, before its first step."""
        self._attachment().begin_epoch()

    def end_epoch(self, metrics: Mapping[str, float] | None = None) -> None:
        """End an epoch whose last step was made; does nothing within one, and nothing the second time."""
        attachment = self._attachment()
        if metrics:
            attachment.metrics = dict(metrics)
        attachment.end_epoch()

    def components(self) -> dict[str, Tensor]:
        """Return the terms that policies added to the loss of the last step, by name."""
        return dict(self._attachment().components)

    def finish(self, optimizer: Optimizer | None) -> Recipe | None:
        """End training: what is provisional becomes final; dead channels are removed, if asked for.

        Returns all that thinning removed, during training too; None where nothing was thinned.
        """
        attachment = self._attachment()
        attachment.end_epoch()
        attachment.remove()
        self._ended = attachment.ended
        self.scheduler.finish()
        if self.thin is not None:
            if self.scheduler.rewrap is None:
                self.scheduler.rewrap = lambda: None  # training is over: no wrapper has to be made anew
            self.scheduler.thin(optimizer, **self.thin)
        return self.scheduler.recipe

    def go_back(self, state: Mapping[str, Any]) -> None:
        """Take the masks of an earlier checkpoint, whose weights the model has again, before training ends."""
        self._attachment().end_epoch()
        self.scheduler.load_state_dict(Field(state, STATE)["scheduler"].value)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold, sharded masks whole; empty before training begins. All ranks call it."""
        if self._scheduler is None or (self._scheduler.attachment is None and self._ended < 0):
            return dict(self._stored or {})
        attachment = self._scheduler.attachment
        ended = self._ended if attachment is None else attachment.ended
        return {"scheduler": gathered(self._scheduler.state_dict()), "ended": ended}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep a checkpoint's state until `start`, which checks it."""
        self._stored = state if state else None

    def _attachment(self) -> Any:
        attachment = self.scheduler.attachment
        if attachment is None:
            raise RuntimeError("training has not begun, or is over")
        return attachment


def thin_options(thin: bool, **options: Any) -> dict[str, Any] | None:
    """Return what thinning at the end of training takes; None without it.

    Raises:
        ValueError: there are options for it, and it was not asked for.
    """
    if not thin and any(options[name] != value for name, value in PLAIN.items()):
        raise ValueError(
            f"{', '.join(PLAIN)} are about thinning at the end of training: add thin=True. For the thinning of a"
            " schedule they are arguments of its Thinner"
        )
    return options if thin else None


def _recipes(state: Any) -> list[Recipe]:
    """Return what was removed when a state was stored; it may be a stranger's."""
    texts = Field(state, STATE)["scheduler"]["recipes"].items() if state else []
    return [Recipe.from_json(text.text()) for text in texts]


def _resize(model: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Fit a model to the shapes of the weights that are about to be loaded into it."""
    own = model.state_dict(keep_vars=True)
    found = {name: state.get(prefix + name, tensor) for name, tensor in own.items()}
    if any(found[name].shape != tensor.shape for name, tensor in own.items() if isinstance(tensor, Tensor)):
        resize_to(model, found)
