"""Teachers: networks that are built for a student from an architecture and a checkpoint, by option or by schedule."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from potstill.compression import DistillationLossWeights, KnowledgeDistillationPolicy, Window, load_checkpoint
from potstill.compression.files.checked import Field, reading
from potstill.compression.schedule import InstancePlan, PolicyPlan, Schedule
from potstill.models import ModelInfo, model_info
from potstill.models.create import build
from potstill.models.transformers_models import is_transformers_name
from potstill.thinning.files.checked import describe

from ..cli.options import Options
from ..errors import UsageError
from .network import stored_info
from .resume import checkpoint_path, fill
from .training_end import end_of_training

logger = logging.getLogger("potstill")

PRETRAINED_CLASSES = 1000
IMAGES = ("dataset", "normalise")
BY_OPTION = "--kd-teacher"
"""What the teacher of the options is called among the policies."""


@dataclass(frozen=True)
class Teachers:
    """Builds teachers for a student with so many classes and inputs of this shape (channels, height, width).

    `trains` says whether there will be training: else a teacher is not needed, and its file may be missing. `images`
    are the options that say which images the student sees.
    """

    classes: int
    input_shape: tuple[int, ...]
    trains: bool = True
    images: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Options, classes: int, input_shape: tuple[int, ...]) -> Teachers:
        """Find those for the student of the options."""
        mode = options.mode
        trains = not (mode.dry_run or mode.evaluate or mode.thinnify or options.sensitivity.sense)
        return cls(classes, input_shape, trains, {name: getattr(options.data, name) for name in IMAGES})

    def __call__(self, arch: str, checkpoint: str | None, pretrained: bool) -> nn.Module | None:
        """Return a trained network.

        The student's random numbers go on as if it had not been made.

        Raises:
            ModelError: there is no such network, or its trained weights cannot be had.
            CheckpointError: the checkpoint is missing, damaged or of a network with another code.
            UsageError: the network does not fit the student.
        """
        if checkpoint is None or not is_transformers_name(arch):  # its folder may be gone
            model_info(arch)
        path = None if checkpoint is None else checkpoint_path(Path(checkpoint).expanduser())
        if not self.trains and (path is None or not path.exists()):
            if path is not None:
                logger.warning("the teacher's checkpoint %s does not exist yet", path)
            return None
        contents = None if path is None else load_checkpoint(path)
        with torch.random.fork_rng(devices=[]):
            if path is None or contents is None:
                return self._pretrained(arch)
            return self._trained(arch, path, contents)

    def _pretrained(self, arch: str) -> nn.Module:
        if self.classes != PRETRAINED_CLASSES:
            raise UsageError(
                f"the pretrained {arch} knows ImageNet's {PRETRAINED_CLASSES} classes, the student has {self.classes}: "
                "train the teacher on these data and give its checkpoint"
            )
        model = build(self._like_the_student(model_info(arch)), self.classes, pretrained=True)
        with torch.no_grad(), reading(f"the pretrained {arch} on images of {list(self.input_shape)}"):
            model.eval()(torch.zeros(2, *self.input_shape))
        return _channels_last(model)

    def _like_the_student(self, info: ModelInfo) -> ModelInfo:
        channels, height, width = self.input_shape
        return replace(info, input_shape=(channels, height, width))

    def _trained(self, arch: str, path: Path, contents: Mapping[str, Any]) -> nn.Module:
        if contents["arch"] != arch:
            raise UsageError(f"{path} is a checkpoint of {contents['arch']}, not of {arch}")
        with reading(str(path)):
            info = stored_info(contents)
        if contents["num_classes"] != self.classes:
            raise UsageError(f"the teacher {path} knows {contents['num_classes']} classes, the student {self.classes}")
        if tuple(contents["input_shape"]) != tuple(self.input_shape):
            theirs, ours = list(contents["input_shape"]), list(self.input_shape)
            raise UsageError(f"the teacher {path} takes images of {theirs}, the student of {ours}")
        self._compare_images(path, contents)
        model = build(info, self.classes)
        with reading(str(path)):
            fill(model, contents)
        return _channels_last(model)

    def _compare_images(self, path: Path, contents: Mapping[str, Any]) -> None:
        """Warn where the teacher was trained on other images than the student's."""
        with reading(str(path)):
            theirs = Field(dict(contents))["options"].mapping()
        for name, ours in self.images.items():
            if name in theirs and theirs[name].value != ours:
                told = describe(theirs[name].value)
                logger.warning("the teacher %s was trained with %s = %s, the student has %s", path, name, told, ours)


def with_teacher(
    options: Options, schedule: Schedule | None, student: nn.Module, teachers: Teachers
) -> Schedule | None:
    """Return the schedule with the teacher that the options name, from its first epoch to the end of training.

    Raises:
        UsageError: it cannot be built, or training ends before it begins.
    """
    asked = options.distillation
    if asked.kd_teacher is None:
        return schedule
    checkpoint = None if asked.kd_resume is None else str(asked.kd_resume)
    try:
        teacher = teachers(asked.kd_teacher, checkpoint, asked.kd_pretrained)
    except ValueError as error:
        raise UsageError(f"{BY_OPTION} {asked.kd_teacher}: {error}") from error
    weights = DistillationLossWeights(asked.kd_distill_wt, asked.kd_student_wt)
    networks = {"student_model": student, "teacher_model": teacher}
    args = {**networks, "temperature": asked.kd_temp, "loss_weights": weights}
    instance = InstancePlan("extensions", BY_OPTION, KnowledgeDistillationPolicy, args)
    schedule = schedule or Schedule({}, [])
    plan = PolicyPlan("extension", BY_OPTION, _window(options, schedule))
    instances = {**schedule.instances, ("extensions", BY_OPTION): instance}
    return replace(schedule, instances=instances, policies=[plan, *schedule.policies])


def _window(options: Options, schedule: Schedule) -> Window:
    start = options.distillation.kd_start_epoch
    try:
        end = end_of_training(options.training, schedule, None)
    except UsageError as error:
        raise UsageError(f"{BY_OPTION}: {error}") from error
    if start >= end:
        raise UsageError(f"--kd-start-epoch {start}: training ends before, at epoch {end}")
    return Window.between(start, end)


def _channels_last(model: nn.Module) -> nn.Module:
    return model.to(memory_format=torch.channels_last)
