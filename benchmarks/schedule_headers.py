"""The headers of the shipped schedules, and the index made of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
SCHEDULES = ROOT / "schedules"
INDEX = SCHEDULES / "README.md"
FOLDERS = {
    "baselines": "Networks to start from",
    "elements": "Single weights",
    "structures": "Filters, channels, blocks",
    "regularization": "Penalties and gates",
}
FIGURES = re.compile(
    r"([\d.]+) % test accuracy, ([\d,]+) parameters, ([\d,]+) MACs(?:, sparsity ([\d.]+) %)?",
)
STRUCTURES = ("Cols (%)", "Rows (%)", "Ch (%)", "2D (%)", "3D (%)")


@dataclass(frozen=True)
class Shipped:
    """A shipped schedule and what its header says."""

    path: Path

    @property
    def name(self) -> str:
        """Its path in `schedules/`, without suffix."""
        return self.path.relative_to(SCHEDULES).with_suffix("").as_posix()

    @property
    def header(self) -> list[str]:
        """The lines of the comment that the file begins with, without the signs of a comment."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
        return [line.removeprefix("#").removeprefix(" ").rstrip() for line in lines[:end]]

    @property
    def title(self) -> str:
        """The first sentence."""
        paragraph = " ".join(self.header).partition("  ")[0]
        return re.split(r"\. |\.$| Paper:| Published ", paragraph)[0]

    @property
    def method(self) -> str:
        """Return what the first sentence begins with."""
        return self.title.partition(": ")[0]

    @property
    def paper(self) -> str:
        """Return what stands behind `Paper:`."""
        return self.says("Paper").rstrip(".")

    @property
    def commands(self) -> list[list[str]]:
        """The arguments of the commands: the schedule's own, then that of the dense network."""
        return commands("\n".join(self.header))

    @property
    def arch(self) -> str:
        """The network of its command."""
        return option(self.commands[0], "--arch")

    @property
    def dense(self) -> Shipped:
        """The schedule of the dense network that it starts from or is compared with."""
        return Shipped(SCHEDULES / "baselines" / f"{self.arch}.yaml")

    @property
    def runs_everywhere(self) -> bool:
        """Return whether its data set needs no files, so that it is run here."""
        return option(self.commands[0], "--dataset") == "digits" and self.path.parent.name in FOLDERS

    def figures(self, kind: str) -> tuple[str, ...]:
        """Return accuracy, parameters, MACs and perhaps sparsity behind `Baseline:` or `Result:`; () without one."""
        found = FIGURES.match(self.says(kind))
        return found.groups("") if found else ()

    def says(self, label: str) -> str:
        """Return what stands behind a label, with the lines that go on indented or in small letters."""
        text = "\n".join(self.header)
        found = re.search(rf"^(?:Published )?(?i:{label}):\s*(.*(?:\n[ a-z].*)*)", text, re.MULTILINE)
        return " ".join(found.group(1).split()) if found else ""


def commands(text: str) -> list[list[str]]:
    """Return the arguments of all commands in a text."""
    found = re.findall(r"compress_classifier\.py ((?:.*\\\n)*.*)", text)
    return [shlex.split(arguments.replace("\\\n", " ")) for arguments in found]


def option(arguments: Sequence[str], name: str) -> str:
    """Return the value of an option of a command; nothing where it is not given."""
    return arguments[arguments.index(name) + 1] if name in arguments else ""


def shipped() -> list[Shipped]:
    """Return all shipped schedules, those of the networks to start from first."""
    return [Shipped(path) for path in sorted(SCHEDULES.rglob("*.yaml"))]


def final_table(log: str) -> list[str]:
    """Return the last sparsity table of a log, without rules and without what says nothing.

    Rows without any zero are left out, but where training went on with a thinned network, which has none at all.
    """
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in log.splitlines() if line.startswith("| ")]
    start = max(i for i, row in enumerate(rows) if row[0] == "Name")
    names, *body = rows[start:]
    body = body[: next((i for i, row in enumerate(body) if len(row) != len(names)), len(body))]
    share = names.index("Fine (%)") if "Fine (%)" in names else None  # left out where nothing is zero
    sparse = [row for row in body if share is not None and float(row[share])]
    body = sparse or body
    dull = {name for i, name in enumerate(names) if name in STRUCTURES and all(float(row[i]) == 0 for row in body)}
    keep = [i for i, name in enumerate(names) if name not in dull | {"Std", "Mean", "Abs-Mean"}]
    cells = [[row[i] for i in keep] for row in (names, *body)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    total = re.findall(r"^zeros [\d.]+ % of [\d,]+ parameters", log, re.MULTILINE)[-1]
    return ["", *(f"  {_line(row, widths)}".rstrip() for row in cells), f"  {total}"]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return a row of the table: name and shape to the left, numbers to the right."""
    padded = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
    return "  ".join(padded)


def index(schedules: Iterable[Shipped]) -> str:
    """Return the page `schedules/README.md`, from the headers."""
    schedules = list(schedules)
    parts = [INTRODUCTION]
    for folder, title in FOLDERS.items():
        rows = [_row(s) for s in schedules if s.path.parent.name == folder]
        parts += [f"## {title}", tabulate(rows, "keys", "github", disable_numparse=True)]
    others = [_other(s) for s in schedules if s.path.parent.name not in FOLDERS]
    parts += ["## Others", OTHERS, tabulate(others, "keys", "github", disable_numparse=True)]
    parts += ["## Learning rates", tabulate(_rates(schedules), "keys", "github")]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """# Shipped schedules

One file a method. Each header gives the command, the command of the dense network that it starts from or is compared
with, what came out, and the sparsity table. First train the two dense networks (handwritten digits, which come with
scikit-learn):

    python compress_classifier.py --arch simplenet_mnist --dataset digits --lr 0.05 \\
      --compress schedules/baselines/simplenet_mnist.yaml -o runs/simplenet_mnist
    python compress_classifier.py --arch resnet20_cifar --dataset digits --lr 0.1 \\
      --compress schedules/baselines/resnet20_cifar.yaml -o runs/resnet20_cifar

Accuracies are those of the 359 test images in one run (one image is 0.28 %): examples of what a method does, no ranking
of methods. Sparsity is the share of the dense network's parameters that are zero or gone; parameters and multiply-adds
(MACs, of one image) are those of the thinned network, whose outputs equal the masked one's.

This page and the results in the headers are written by `python benchmarks/schedules.py --write`."""


OTHERS = """What their headers say; those in `l0/` are the published figures that they are to be compared with
([more](../docs/l0.md)), those in `lab/` belong to [a lab](../docs/lab.md)."""


def _link(schedule: Shipped) -> str:
    return f"[{schedule.name}]({schedule.path.relative_to(SCHEDULES).as_posix()})"


def _row(schedule: Shipped) -> dict[str, str]:
    before, after = (schedule.figures(kind) or ("",) * 4 for kind in ("Baseline", "Result"))
    return {
        "method": schedule.method,
        "paper": schedule.paper,
        "schedule": _link(schedule),
        "network": schedule.arch,
        "baseline %": before[0],
        "result %": after[0],
        "sparsity %": after[3],
        "parameters": after[1],
        "MACs": after[2],
    }


def _other(schedule: Shipped) -> dict[str, str]:
    return {
        "schedule": _link(schedule),
        "what": schedule.title,
        "data": option(schedule.commands[0], "--dataset"),
        "baseline": schedule.says("Baseline"),
        "result": schedule.says("Result"),
    }


def _rates(schedules: Iterable[Shipped]) -> list[dict[str, str]]:
    found: dict[str, list[str]] = {}
    for schedule in schedules:
        for instance in (yaml.safe_load(schedule.path.read_text()).get("lr_schedulers") or {}).values():
            found.setdefault(instance["class"], []).append(_link(schedule))
    return [{"class": f"`{name}`", "for example": ", ".join(links[:3])} for name, links in sorted(found.items())]
