"""A schedule in the Hugging Face Trainer, and thinned models beside `save_pretrained`.

`Trainer(callbacks=[CompressionCallback("schedule.yaml", example_inputs=batch)])`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from potstill.compression import CompressionScheduler
from potstill.compression.files.checkpoints import load_state, save_state
from potstill.thinning import Recipe, ThinningError
from potstill.thinning.dense_size import dense_problem
from potstill.thinning.files.regular import must_be_file

from .config_sizes import fitted_config
from .driver import Driver, Schedule

STATE = "compression.pt"
RECIPE = "recipe.json"
CALL = "call potstill.integrations.transformers.load_thinned on this folder"


class CompressionCallback(TrainerCallback):
    """Carries a schedule out during `Trainer.train`, and goes on with it from the Trainer's checkpoints.

    Its state lies in each checkpoint's folder, as `compression.pt`. Evaluation between epochs sees the network of its
    epoch; the terms of the loss are logged by name. Learning rates are the Trainer's: it sets them at each step.

    Attributes:
        recipe: what thinning removed, after training with `thin=True`.
    """

    def __init__(
        self,
        schedule: Schedule,
        example_inputs: Any = None,
        *,
        thin: bool = False,
        allow_inexact: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        """Take the schedule.

        Args:
            schedule: a file's path, or what such a file holds.
            example_inputs: a batch as the model takes it (a dict), to find which channels belong together.
            thin: remove dead channels at the end of training, and prove it.
            allow_inexact: with `thin`, also where the function changes a little (see `thin`).
            checkpoint: the folder given to `train(resume_from_checkpoint=...)`, where it is none of `output_dir`.
        """
        self._driver = Driver(schedule, example_inputs, allow_inexact)
        self._thin, self._checkpoint = thin, checkpoint
        self.recipe: Recipe | None = None

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
        """Finish, and thin if asked to."""
        optimizer = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])
        self.recipe = self._driver.finish(optimizer, self._thin)

    def _stored(self, args: TrainingArguments, state: TrainerState) -> Mapping[str, Any]:
        """Read the state of the checkpoint that training goes on from.

        Raises:
            ValueError: it is not where checkpoints of this run lie.
        """
        folder = _folder(args, state) if self._checkpoint is None else Path(self._checkpoint)
        if not (folder / STATE).is_file():
            raise ValueError(
                f"training goes on at step {state.global_step}, but {folder / STATE} is not there: the schedule would"
                " begin again. Give CompressionCallback(checkpoint=...) the folder that train() resumes from"
            )
        return load_state(folder / STATE)


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Return where the Trainer puts the checkpoint of this step."""
    return Path(args.output_dir or "trainer_output", f"checkpoint-{state.global_step}")


def _steps_per_epoch(args: TrainingArguments, state: TrainerState, loader: Any) -> int:
    """Return the optimizer's steps of an epoch, as the Trainer counts them."""
    try:
        batches = len(loader)
    except TypeError:  # data of unknown length are one epoch of max_steps
        return int(state.max_steps)
    return max(1, -(-batches // args.gradient_accumulation_steps))


def save_thinned(model: PreTrainedModel, recipe: Recipe, folder: str | os.PathLike[str]) -> bool:
    """Save a thinned model like `save_pretrained`; return whether `from_pretrained` can load it.

    Where all layers have lost the same, the config says so (`intermediate_size`, a number of heads), and the folder is
    as any other. Elsewhere the recipe goes along, and `load_thinned` builds the dense model, thins it and loads.

    Args:
        model: the thinned model.
        recipe: what was removed from it since it was built from its config (see `Recipe.then` for several).
        folder: where to save.
    """
    path = Path(folder)
    config = fitted_config(model)
    if config is not None:
        dense, model.config = model.config, config
        try:
            model.save_pretrained(path)
        finally:
            model.config = dense
        return True
    model.save_pretrained(path, max_shard_size="1000TB")
    (path / "model.safetensors").rename(path / "thinned.safetensors")
    (path / RECIPE).write_text(recipe.to_json(), encoding="utf-8")
    # `from_pretrained` looks for the file of each weight, and names the first that is not there.
    index = {"metadata": {}, "weight_map": dict.fromkeys(model.state_dict(), CALL)}
    (path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return False


def load_thinned(folder: str | os.PathLike[str]) -> PreTrainedModel:
    """Load a model that `save_thinned` saved, in eval mode.

    Raises:
        ThinningError: the folder holds none, or its recipe does not fit the model that its config describes.
    """
    path = Path(folder)
    try:
        config: PreTrainedConfig = transformers.AutoConfig.from_pretrained(path, trust_remote_code=False)
        name = (config.architectures or [""])[0]
        kind = getattr(transformers, name, None)
        if not (isinstance(kind, type) and issubclass(kind, PreTrainedModel)):
            raise ThinningError(f"{path}: its config names no model of transformers: {name[:80]!r}")
        if not (path / RECIPE).exists():
            model: PreTrainedModel = kind.from_pretrained(path)
            return model
        recipe = Recipe.from_json(must_be_file(path / RECIPE).read_text(encoding="utf-8"))
        weights = load_file(must_be_file(path / "thinned.safetensors"))
        _must_be_explained(kind, config, weights)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:  # whatever a foreign config brings
        raise ThinningError(f"{path} holds no thinned model: {error}") from error
    model = kind(config)
    recipe.apply(model)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    model.tie_weights()
    lost = set(missing) - set(getattr(model, "_tied_weights_keys", None) or ())
    if unexpected or lost:
        raise ThinningError(f"{path}: the weights do not fit: missing {sorted(lost)[:5]}, unexpected {unexpected[:5]}")
    return model.eval()


def _must_be_explained(kind: type[PreTrainedModel], config: PreTrainedConfig, weights: Mapping[str, Tensor]) -> None:
    """Check, before it is built, that the weights explain the size of the network that a config describes.

    Raises:
        ThinningError: they do not.
    """
    named = {name: value for name, value in config.to_dict().items() if "layer" in name and type(value) is int}
    for name, layers in named.items():
        if layers > len(weights):  # each layer has a tensor at least
            raise ThinningError(f"its config has {name} = {layers}, and there are {len(weights)} weights")
    problem = dense_problem(lambda: kind(config), sum(value.nbytes for value in weights.values()))
    if problem:
        raise ThinningError(problem)
