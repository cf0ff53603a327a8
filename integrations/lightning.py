"""A schedule in Lightning: `Trainer(callbacks=[CompressionCallback("schedule.yaml", example_inputs=x)])`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch.optim import Optimizer

try:
    import lightning.pytorch as pl
    from lightning.pytorch.core.optimizer import LightningOptimizer
    from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('this callback needs the extra "lightning": pip install "potstill[lightning]"') from error

from potstill.compression import CompressionScheduler
from potstill.thinning import Recipe

from .driver import Driver, Schedule, thin_options


class CompressionCallback(pl.Callback):
    """Carries a schedule out during `Trainer.fit`, and goes on with it from Lightning's checkpoints.

    Epochs and steps are the trainer's: a step is one of the optimizer, whatever is accumulated. Validation sees the
    network of its epoch; the terms of the loss are logged by name. Parameters are named as in the LightningModule:
    `model.conv1.weight` for `self.model = ...`.

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
    ) -> None:
        """Take the schedule.

        Args:
            schedule: a file's path, or what such a file holds.
            example_inputs: what the module's `forward` is called with, to find which channels belong together.
            thin: remove dead channels at the end of training, and prove it.
            allow_inexact: with `thin`, also where the function changes a little (see `thin`).
            round_to: with `thin`, numbers of channels stay multiples of this.
            add_bias: with `thin`, layers get a bias where it takes the constants of channels that go.
        """
        options = thin_options(thin, allow_inexact=allow_inexact, round_to=round_to, add_bias=add_bias)
        self._driver = Driver(schedule, example_inputs, options)
        self.recipe: Recipe | None = None

    def __repr__(self) -> str:
        """Return what it carries out, and how far it is."""
        return repr(self._driver)

    @property
    def scheduler(self) -> CompressionScheduler:
        """The scheduler, once training has begun."""
        return self._driver.scheduler

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let the module be loaded from a checkpoint of a network that was thinned during training."""
        inner: Callable[[dict[str, Any]], None] = pl_module.on_load_checkpoint

        def load(checkpoint: dict[str, Any]) -> None:
            self._driver.thin_as(checkpoint.get("callbacks", {}).get(self.state_key, {}), pl_module)
            inner(checkpoint)

        pl_module.on_load_checkpoint = load  # type: ignore[method-assign]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the scheduler: learning-rate schedulers read the optimizer before its state is loaded.

        Raises:
            ValueError: the strategy hides parameters in others, or there are several optimizers.
            ThinningError: with `thin`, the strategy shards parameters.
        """
        strategy = trainer.strategy
        if isinstance(strategy, FSDPStrategy):
            raise ValueError(
                "FSDPStrategy makes one flat parameter of many, which have no channels any more: take"
                " ModelParallelStrategy (fully_shard), or DDPStrategy"
            )
        self._driver.build(pl_module, _only(trainer))
        if isinstance(strategy, DDPStrategy):
            self.scheduler.rewrap = partial(_rewrap, strategy)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Follow the optimizer's steps, when all states are loaded."""
        batches = int(trainer.num_training_batches)
        steps = -(-batches // trainer.accumulate_grad_batches)
        self._driver.start(_only(trainer), steps, trainer.global_step)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin an epoch."""
        self._driver.begin_epoch()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Go on with an epoch that was interrupted: Lightning does not announce its start again."""
        self._driver.begin_epoch()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the terms that policies added to the loss."""
        values = {f"compression/{name}": value.detach().mean() for name, value in self._driver.components().items()}
        pl_module.log_dict(values, on_step=True, on_epoch=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the epoch after its validation, before checkpoints are written."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._end_epoch(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End an epoch without validation; log what policies measure."""
        self._end_epoch(trainer)
        pl_module.log_dict({f"compression/{name}": value for name, value in self.scheduler.metrics().items()})

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finish, and thin if asked to."""
        self.recipe = self._driver.finish(_only(trainer))

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's state for Lightning's checkpoint."""
        return self._driver.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self._driver.load_state_dict(state_dict)

    def _end_epoch(self, trainer: pl.Trainer) -> None:
        metrics: Mapping[str, Any] = trainer.callback_metrics
        found = {"min": metrics.get("val_loss"), "max": metrics.get("val_acc", metrics.get("val_accuracy"))}
        self._driver.end_epoch({name: float(value) for name, value in found.items() if value is not None})


def _rewrap(strategy: DDPStrategy) -> None:
    """Wrap the module anew: what `DistributedDataParallel` has prepared is for the shapes of before."""
    strategy.model = strategy.lightning_module
    strategy.configure_ddp()


def _only(trainer: pl.Trainer) -> Optimizer:
    """Return the module's only optimizer.

    Raises:
        ValueError: it has none or several.
    """
    if len(trainer.optimizers) != 1:
        raise ValueError(
            f"CompressionCallback follows the steps of one optimizer; configure_optimizers returns"
            f" {len(trainer.optimizers)}. With several, call the scheduler's hooks in training_step"
        )
    optimizer = trainer.optimizers[0]
    return optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
