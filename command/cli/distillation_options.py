"""The options of distillation, as Distiller spelled them."""

from __future__ import annotations

import argparse
from pathlib import Path

from .option_types import architecture, count0, number, positive

DEFAULTS = {
    "kd_pretrained": False,
    "kd_resume": None,
    "kd_temp": 1.0,
    "kd_distill_wt": 0.5,
    "kd_student_wt": 0.5,
    "kd_teacher_wt": 0.0,
    "kd_start_epoch": 0,
}


def add_distillation_options(group: argparse._ArgumentGroup) -> None:
    """Add the options; `distillation_problem` says what is wrong with them together."""
    group.add_argument("--kd-teacher", type=architecture, metavar="NAME", help="also learn from this network's answers")
    group.add_argument("--kd-pretrained", action="store_true", help="the teacher has torchvision's trained weights")
    group.add_argument(
        "--kd-resume", type=_resolved, metavar="PATH", help="the teacher's checkpoint, thinned or not, or run folder"
    )
    group.add_argument(
        "--kd-temperature",
        "--kd-temp",
        dest="kd_temp",
        type=positive,
        default=DEFAULTS["kd_temp"],
        metavar="T",
        help="divides the logits of both networks (default: %(default)s)",
    )
    for letter, name, what in (
        ("d", "distill", "of the teacher's answers"),
        ("s", "student", "of the loss on the labels"),
        ("t", "teacher", "of the teacher's own loss; only 0, since it is frozen"),
    ):
        group.add_argument(
            f"--kd-{name}-wt",
            f"--kd-{letter}w",
            dest=f"kd_{name}_wt",
            type=number,
            default=DEFAULTS[f"kd_{name}_wt"],
            metavar="X",
            help=f"weight {what} (default: %(default)s)",
        )
    group.add_argument(
        "--kd-start-epoch", type=count0, default=DEFAULTS["kd_start_epoch"], metavar="N", help="(default: %(default)s)"
    )


def distillation_problem(options: argparse.Namespace) -> str | None:
    """What is wrong with the options of distillation, or None."""
    given = [name for name, default in DEFAULTS.items() if getattr(options, name) != default]
    if options.kd_teacher is None:
        return f"--{given[0].replace('_', '-')} needs --kd-teacher, the teacher's network" if given else None
    if options.kd_teacher == "list":
        return "--kd-teacher takes the name of a network; --arch list names all"
    if options.kd_teacher_wt:
        return f"--kd-teacher-wt: the teacher is frozen: its loss must have weight 0, not {options.kd_teacher_wt:g}"
    if options.kd_distill_wt == options.kd_student_wt == 0:
        return "--kd-distill-wt and --kd-student-wt are both 0: nothing would be learned"
    if options.kd_pretrained == (options.kd_resume is not None):
        return "--kd-teacher needs trained weights: give exactly one of --kd-resume PATH and --kd-pretrained"
    return None


def _resolved(text: str) -> Path:
    """An absolute path: a resumed run must find the same file, and `runs/latest` will soon be another folder."""
    return Path(text).resolve()
