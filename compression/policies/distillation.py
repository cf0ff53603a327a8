"""Knowledge distillation: the network that is trained also learns from the answers of a trained one.

Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..declare.arguments import NonNegative, Positive
from ..declare.cross_checks import Complaint, apart
from ..declare.registry import register
from ..distillation import (
    DistillationError,
    DistillationLossWeights,
    check_settings,
    digest,
    distillation_loss,
    logits_of,
)
from ..files.checked import CheckpointError, Field
from ..steps import Window
from .base import LossComponent, Moment, PolicyLoss, ScheduledTrainingPolicy
from .host import Host

TeacherBuilder = Callable[[str, str | None, bool], nn.Module | None]
"""Makes a teacher of (architecture, checkpoint, pretrained); None where there is no training and so no need of one."""

EQUAL = DistillationLossWeights()


class KnowledgeDistillationPolicy(ScheduledTrainingPolicy):
    """`student weight * the loop's loss + distill weight * distillation_loss`, while its window lasts.

    It listens to the student's forward pass and asks the teacher about the same inputs, once a minibatch and under the
    same autocast: the training loop stays as it is. Terms of regularizers are added to the weighted loss, so they count
    in full. The teacher is frozen, in eval mode, on the student's device, and in nobody's state dict.
    """

    compresses = False
    weighs_loss = True
    component = "distillation_loss"

    def __init__(
        self,
        student_model: nn.Module,
        teacher_model: nn.Module | None,
        temperature: float = 1.0,
        loss_weights: DistillationLossWeights = EQUAL,
    ) -> None:
        """Take both networks; without a teacher it can be planned but not trained with.

        Raises:
            DistillationError: (a ValueError) a temperature or weights that cannot be.
        """
        check_settings(temperature, loss_weights)
        self.student, self.teacher = student_model, teacher_model
        self.temperature, self.loss_weights = temperature, loss_weights
        self._handle: RemovableHandle | None = None
        self._heard: tuple[Tensor, Tensor] | None = None
        self._count = 0

    def bind(self, scheduler: Host, window: Window, name: str) -> None:
        """Join a scheduler, and freeze the teacher.

        Raises:
            DistillationError: student and teacher share a parameter.
        """
        super().bind(scheduler, window, name)
        self._digest = ""
        if self.teacher is None:
            return
        own = {id(parameter) for parameter in self.student.parameters()}
        shared = [name for name, parameter in self.teacher.named_parameters() if id(parameter) in own]
        if shared:
            raise DistillationError(f"student and teacher share {shared[0]}: make the teacher a copy (copy.deepcopy)")
        self.teacher.eval().requires_grad_(False)
        self._digest = digest(self.teacher)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the student's outputs: Distiller's loops called this; calling the student is the same."""
        return self.student(*inputs, **named)

    def on_minibatch_begin(self, moment: Moment) -> None:
        """Begin to listen."""
        self._heard, self._count = None, 0
        if self._handle is None:
            self._handle = self._listen()

    def before_backward_pass(self, moment: Moment, loss: Tensor) -> PolicyLoss:
        """Weigh the loop's loss and add the distillation loss; the next forward pass is a new one.

        Raises:
            DistillationError: the student ran not once, or the loss has no gradient that could be weighed.
        """
        heard, count = self._heard, self._count
        self._heard, self._count = None, 0
        if self.teacher is None:
            raise DistillationError(f"{self.name}: there is no teacher to learn from")
        if not loss.requires_grad:
            raise DistillationError(
                f"{self.name}: distillation weighs the training loss, and this one has no gradient; with attach(), "
                "call backward on `attachment.loss(loss)`"
            )
        if heard is None or count != 1:
            raise DistillationError(
                f"{self.name}: the student ran {count} times between on_minibatch_begin and before_backward_pass; "
                "distillation needs exactly one forward pass of its student_model, in training mode (where the loop "
                "calls what torch.compile or DataParallel made of the network, that is the student_model)"
            )
        value = self.loss_weights.distill * distillation_loss(*heard, self.temperature)
        return PolicyLoss(self.loss_weights.student * loss + value, [LossComponent(self.component, value)])

    def on_minibatch_end(self, moment: Moment) -> None:
        """Listen no more: validation and copies of the network are undisturbed."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def state_dict(self) -> dict[str, Any]:
        """Return which teacher it is: a digest of its weights."""
        return {"teacher": self._digest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            CheckpointError: the run had another teacher.
        """
        theirs = Field(dict(state))["teacher"].text()
        if self._digest and theirs and theirs != self._digest:
            raise CheckpointError(
                "the teacher is not the one that this run began with (its weights differ): give that one, or start a "
                "new phase with --reset-optimizer"
            )

    def _listen(self) -> RemovableHandle:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if module is self.student and module.training and torch.is_grad_enabled():  # not a copy, not validation
                self._count += 1
                self._heard = self._ask(args, kwargs, logits_of(output, "student"))

        return self.student.register_forward_hook(hook, with_kwargs=True)

    def _ask(self, args: Any, kwargs: Any, student: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the student's logits and the teacher's."""
        if self.teacher is None:
            return None
        if self.teacher.training:  # a module that holds both networks may have switched it
            self.teacher.eval()
        held = next(self.teacher.parameters(), None)
        if held is not None and held.device != student.device:
            self.teacher.to(student.device)
        with torch.no_grad():
            teacher = logits_of(self.teacher(*args, **kwargs), "teacher")
        if teacher.shape != student.shape or student.dim() < 2 or student.shape[1] < 2:
            raise DistillationError(
                f"{self.name}: the teacher's logits have shape {list(teacher.shape)}, the student's "
                f"{list(student.shape)}; distillation needs the same, with two classes or more"
            )
        return student, teacher


@register("extensions", "KnowledgeDistillationPolicy")
@dataclass(eq=False, repr=False)
class KnowledgeDistillation(KnowledgeDistillationPolicy):
    """Learns from a teacher too (Hinton et al. 2015): a trained network, given by architecture and checkpoint.

    Attributes:
        model: the student, which is the network under training.
        arch: the teacher's architecture.
        checkpoint: its checkpoint, thinned or not, or its run folder.
        pretrained: take the weights that come with the architecture instead.
        temperature: divides the logits of both networks; above 1 it shows more of what the teacher thinks.
        distill_weight: weight of the distance to the teacher's answers.
        student_weight: weight of the training loop's own loss.
        build_teacher: makes the teacher; it comes from whoever builds the schedule.
    """

    model: nn.Module
    arch: str
    checkpoint: str | None = None
    pretrained: bool = False
    temperature: Positive = 1.0
    distill_weight: NonNegative = 0.5
    student_weight: NonNegative = 0.5
    build_teacher: TeacherBuilder | None = None

    def __post_init__(self) -> None:
        """Build the teacher.

        Raises:
            DistillationError: nobody said how.
        """
        if self.build_teacher is None:
            raise DistillationError("needs to know how networks are built: build(..., build_teacher=...)")
        teacher = self.build_teacher(self.arch, self.checkpoint, self.pretrained)
        weights = DistillationLossWeights(self.distill_weight, self.student_weight)
        super().__init__(self.model, teacher, self.temperature, weights)

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
        """Return what a schedule's arguments get wrong together."""
        return apart(_untrained(args), _unweighted(args))


def _untrained(args: Mapping[str, Any]) -> Iterable[Complaint]:
    if (args["checkpoint"] is not None) == args["pretrained"]:
        yield "", "a teacher needs trained weights: give exactly one of checkpoint and pretrained: true"


def _unweighted(args: Mapping[str, Any]) -> Iterable[Complaint]:
    if args["distill_weight"] == args["student_weight"] == 0:
        yield "distill_weight", "is 0 and student_weight too: nothing would be learned"
