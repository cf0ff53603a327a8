"""The options of distillation, as Distiller spelled them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from .option import Group, option
from .option_types import architecture, count0, number, positive, resolved


@dataclass(frozen=True)
class DistillationOptions(Group):
    """A teacher, and how a network learns from it."""

    TITLE: ClassVar[str] = "distillation"

    kd_teacher: str | None = option(
        "--kd-teacher", type=architecture, metavar="NAME", help="also learn from this network's answers"
    )
    kd_pretrained: bool = option("--kd-pretrained", default=False, help="the teacher has torchvision's trained weights")
    kd_resume: Path | None = option(
        "--kd-resume", type=resolved, metavar="PATH", help="the teacher's checkpoint, thinned or not, or run folder"
    )
    kd_temp: float = option(
        "--kd-temperature", "--kd-temp", type=positive, default=1.0, metavar="T",
        help="divides the logits of both networks (default: %(default)s)",
    )  # fmt: skip
    kd_distill_wt: float = option(
        "--kd-distill-wt", "--kd-dw", type=number, default=0.5, metavar="X",
        help="weight of the teacher's answers (default: %(default)s)",
    )  # fmt: skip
    kd_student_wt: float = option(
        "--kd-student-wt", "--kd-sw", type=number, default=0.5, metavar="X",
        help="weight of the loss on the labels (default: %(default)s)",
    )  # fmt: skip
    kd_teacher_wt: float = option(
        "--kd-teacher-wt", "--kd-tw", type=number, default=0.0, metavar="X",
        help="weight of the teacher's own loss; only 0, since it is frozen (default: %(default)s)",
    )  # fmt: skip
    kd_start_epoch: int = option("--kd-start-epoch", type=count0, default=0, metavar="N", help="(default: %(default)s)")

    def problem(self) -> str | None:
        """Return what is wrong with the options together, or None."""
        if self.kd_teacher is None:
            given = [o.name for o in fields(self) if getattr(self, o.name) != o.default]
            return f"--{given[0].replace('_', '-')} needs --kd-teacher, the teacher's network" if given else None
        if self.kd_teacher == "list":
            return "--kd-teacher takes the name of a network; --arch list names all"
        if self.kd_teacher_wt:
            return f"--kd-teacher-wt: the teacher is frozen: its loss must have weight 0, not {self.kd_teacher_wt:g}"
        if self.kd_distill_wt == self.kd_student_wt == 0:
            return "--kd-distill-wt and --kd-student-wt are both 0: nothing would be learned"
        if self.kd_pretrained == (self.kd_resume is not None):
            return "--kd-teacher needs trained weights: give exactly one of --kd-resume PATH and --kd-pretrained"
        return None
