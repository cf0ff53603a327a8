"""After a run, its thinned network in the formats of `--export`, each checked and measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from potstill.compression import sparsity
from potstill.models.datasets import Split
from potstill.models.transformers_models import PREFIX
from potstill.thinning import Recipe
from potstill.thinning.files.text import Lines, markdown, printable

from ..errors import UsageError
from ..exports import Export, exports
from ..exports.registry import Runner
from ..exports.written import require, write
from .network import about
from .session import Session

CALIBRATION = 256
"""How many validation images give the ranges of formats that round."""
ALL = "all"


def asked_exports(text: str | None) -> dict[str, Export]:
    """Return the formats that `--export` names, by name."""
    known = exports()
    names = known if text == ALL else text.split(",") if text else ()
    return {name: known[name] for name in names}


def require_exports(text: str | None) -> None:
    """Say early that a format cannot be written here.

    Raises:
        UsageError: packages are missing.
    """
    for export in asked_exports(text).values():
        require(export)


def metadata(**facts: Any) -> dict[str, str]:
    """Return what a file says about its network, each as JSON or a plain text; of a folder of transformers its name."""
    arch = facts.get("arch", "")
    if arch.startswith(PREFIX):  # a path on the machine that trained is nobody else's business
        facts["arch"] = f"{PREFIX}{Path(arch).name}"
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


def deploy(run: Session, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Write the thinned network in each format; return by format: file, bytes, difference, accuracy or what failed."""
    images = calibration_images(run)
    data = run.data
    texts = metadata(
        **about(run.info, data.classes, data.mean, data.std),
        sparsity=f"{sparsity(run.model):.6f}",
        recipe_sha256=hashlib.sha256(recipe.to_json().encode()).hexdigest(),
    )
    split = data.test if run.options.output.test else data.validation
    found: dict[str, dict[str, Any]] = {}
    for name, export in asked_exports(run.options.output.exports).items():
        path = run.folder.path / export.file.name.replace("model", "thinned", 1)
        try:
            done = write(export, run.model, images, path, texts)
        except UsageError as error:
            found[name] = {"file": path.name, "failed": str(error)}
            continue
        top1 = None if done.run is None else accuracy(done.run, split)
        found[name] = {"file": path.name, "bytes": done.bytes, "difference": done.difference, "top1": top1}
    return found


def calibration_images(run: Session) -> torch.Tensor:
    """Return validation images, prepared for the network, on the CPU."""
    batches, number, taken = run.data.validation.batches(64), 0, []
    for images, _ in batches:
        taken.append(images)
        number += len(images)
        if number >= CALIBRATION:
            break
    images = torch.cat(taken)[:CALIBRATION]
    return images if len(images) > 1 else images.expand(2, *images.shape[1:])


def accuracy(run: Runner, split: Split) -> float:
    """Return the top-1 accuracy of a file in percent."""
    right = sum(int((run(images.contiguous()).argmax(1) == labels).sum()) for images, labels in split.batches(64))
    return 100 * right / len(split)


def export_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what was written as a table for people."""
    rows = [[name, printable(facts["file"]), *_cells(facts)] for name, facts in found.items()]
    head = ["format", "file", "bytes", "difference", "top1 (%)"]
    marked = [[name, markdown(facts["file"]), *map(markdown, _cells(facts))] for name, facts in found.items()]
    return Lines(
        tabulate(rows, head, tablefmt="psql", disable_numparse=True),
        in_markdown=tabulate(marked, head, tablefmt="github", disable_numparse=True),
    )


def _cells(facts: Mapping[str, Any]) -> list[str]:
    if "failed" in facts:
        return ["failed", "-", "-"]
    checked = facts["difference"] is not None
    return [
        f"{facts['bytes']:,}",
        f"{facts['difference']:.1e}" if checked else "not checked",
        f"{facts['top1']:.2f}" if checked else "-",
    ]
