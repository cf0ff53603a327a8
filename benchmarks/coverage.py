"""Thins one small member of every family of timm and transformers, and writes what came of it as a table.

    python benchmarks/coverage.py                     all families that are not in the results yet
    python benchmarks/coverage.py --only vit llama    some families, also those that are
    python benchmarks/coverage.py --again fails       all families of an outcome once more
    python benchmarks/coverage.py --library timm      the families of one library
    python benchmarks/coverage.py --short             three, in this process: what CI runs
    python benchmarks/coverage.py --write             only write docs/coverage.md from the results

Each model runs in a process of its own, on one thread, with a time limit; results go to docs/results/coverage.csv, one
line a model, and a second call goes on where the first one ended. Of every class of removable channels 30 % are zeroed;
`thin` removes them and compares the outputs; then a training step is tried.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import logging
import multiprocessing
import os
import re
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import zip_longest
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from families.page import page

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs/results/coverage.csv", ROOT / "docs/coverage.md"
LIMIT = 60
"""Seconds of the processor that a model may take."""
MEMORY = 8 << 30
"""Bytes that a process may have: a model that was not made small fails, not the machine."""
SHORT = (("timm", "resnet"), ("timm", "vision_transformer"), ("transformers", "llama"))


@dataclass
class Row:
    """What came of one model.

    `outcome`: exact, refused, too slow, crash, or fails (the model is not built here or does not run). `trains`:
    whether a training step works afterwards, yes or no; nothing if it did not work before. Times are of the processor.
    """

    library: str
    family: str
    model: str = ""
    outcome: str = ""
    parameters: int = 0
    left: int = 0
    removable: float = 0.0
    went: float = 0.0
    difference: float = 0.0
    trace: float = 0.0
    thin: float = 0.0
    reason: str = ""
    trains: str = ""


# ---------- the families


def families() -> Iterator[tuple[str, str]]:
    """Yield library and name of every family that is installed, of both libraries in turn."""
    found = [[(name, family) for family in library.names()] for name, library in libraries().items()]
    yield from (one for pair in zip_longest(*found) for one in pair if one is not None)


def libraries() -> dict[str, ModuleType]:
    """Return, for each library that is installed, what makes its models."""
    installed = [name for name in ("timm", "transformers") if importlib.util.find_spec(name)]
    return {name: importlib.import_module(f"families.of_{name}") for name in installed}


# ---------- one model


Maker = Callable[[str], tuple[str, Any, Any]]
"""Makes, by its name, a model with its own name and inputs for it."""


def measured(library: str, family: str, make: Maker | None = None) -> Row:
    """Make a model, trace it, zero channels, thin it."""
    import torch
    from families.training import training_fails

    from potstill.thinning import ThinningError, thin, trace
    from potstill.thinning.testing import make_sensitive, zero_channels

    torch.manual_seed(0)
    row = Row(library, family)
    try:
        row.model, model, inputs = (make or libraries()[library].model_of)(family)
        make_sensitive(model, inputs)
    except Exception as error:
        text = re.sub(r"/\S+/", "", f"{type(error).__name__}: {error}")  # without paths of this machine
        row.outcome, row.reason = "fails", " ".join(text.split())[:240]
        return row
    unable = training_fails(model, inputs)
    row.parameters = sum(parameter.numel() for parameter in model.parameters())
    start = time.process_time()
    try:
        graph = trace(model, inputs)
        row.trace = time.process_time() - start
        row.removable, row.reason = shares(graph)
        zeroed, start = zero_channels(model, graph), time.process_time()
        recipe = thin(model, inputs)
    except ThinningError as error:
        row.outcome, row.reason = "refused", str(error).splitlines()[0][:200]
        return row
    row.thin, row.left, row.outcome = time.process_time() - start, recipe.parameters[1], "exact"
    row.difference = recipe.max_relative_difference
    row.went = gone(graph, recipe) / max(1, zeroed) if zeroed else 1.0
    if row.went < 1 and recipe.refused:
        most = max(recipe.refused, key=lambda kept: kept.channels)
        row.reason = f"stays: {most.use}: {most.reason}"[:200]
    elif row.went < 1:
        row.reason = "".join(recipe.notes[:1])
    failure = "" if unable else training_fails(model, inputs)
    row.trains = "" if unable else "no" if failure else "yes"
    if failure:
        row.reason = f"does not train: {failure}"
    return row


def gone(graph: Any, recipe: Any) -> int:
    """Return how many of a graph's channels a recipe removes."""
    kept = {change.name: change.keep for change in recipe.tensors}
    found: set[int] = set()
    for use in graph.uses:
        indices = kept.get(use.name, {}).get(use.dim)
        if indices is not None:
            found |= set(use.channels.tolist()) - set(use.channels[indices].tolist())
    return len(found - {0})


def measured_here(library: str, family: str, limit: int, sender: Connection, make: Maker | None) -> None:
    """Measure in this process, which has little memory and time, and send the row."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    try:
        row = measured(library, family, make)
    except Exception as error:  # no ThinningError: a fault of ours
        row = Row(library, family, outcome="crash", reason=f"{type(error).__name__}: {error}".splitlines()[0][:200])
    sender.send(row)


def shares(graph: Any) -> tuple[float, str]:
    """Return the share of channels that layers make and that can be removed, and the main reason why others cannot."""
    status: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for group in graph.classes():
        if any(role == "out" for _, _, role in group.uses) and group.reason != "an output of the model":
            status[group.status] += group.size
            reasons[re.sub(r"( in|^) ?[\w.]+ \((\w+)\)", r"\1 \2", group.reason).strip()] += group.size
    reasons.pop("", None)
    return status["removable"] / max(1, status.total()), next((why for why, _ in reasons.most_common(1)), "")[:160]


def in_a_process(library: str, family: str, limit: int, make: Maker | None = None) -> Row:
    """Measure in a process of its own that ends with the time limit."""
    # forked from a process that has all imports
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measured_here, args=(library, family, limit, sender, make))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:  # it ended without a row
        pass
    finally:
        process.join()
    if process.exitcode == -signal.SIGXCPU:
        return Row(library, family, outcome="too slow", reason=f"more than {limit} s of the processor")
    return Row(library, family, outcome="fails", reason=f"the process ends with status {process.exitcode}")


# ---------- results


def read(entry: dict[str, str]) -> Row:
    """Return a row from its text."""
    kinds = {"parameters": int, "left": int, "removable": float, "went": float}
    kinds |= {"difference": float, "trace": float, "thin": float}
    # Results of earlier versions have fewer columns.
    known = [field.name for field in fields(Row) if field.name in entry]
    return Row(**{name: kinds.get(name, str)(entry[name]) for name in known})


def known(path: Path) -> list[Row]:
    """Return the rows of earlier calls, the last of each family."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [read(entry) for entry in csv.DictReader(file)]
    return sorted({(row.library, row.family): row for row in rows}.values(), key=lambda row: (row.library, row.family))


def tidied(path: Path) -> list[Row]:
    """Write the rows anew, one line a family in their order, under the columns of today, and return them."""
    rows = known(path)
    path.unlink(missing_ok=True)
    for row in rows:
        append(path, row)
    return rows


def append(path: Path, row: Row) -> None:
    """Write a row behind the others."""
    fresh = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        if fresh:
            writer.writeheader()
        writer.writerow(rounded(row))


def rounded(row: Row) -> dict[str, Any]:
    """Return a row as text of few digits."""
    return {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in asdict(row).items()}


def prepare() -> None:
    """Keep the libraries' own remarks out of the output, work offline on one thread, and thin a few for the imports."""
    import torch

    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    for library in libraries():  # what is imported on first use takes longer than most of the models
        measured(library, next(family for name, family in SHORT if name == library))


def main(arguments: list[str]) -> int:
    """Run the families that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="names of families")
    parser.add_argument("--short", action="store_true", help="three models in this process")
    parser.add_argument("--library", choices=sorted(libraries()), help="the families of one library")
    parser.add_argument("--again", nargs="+", default=(), help="outcomes whose families are measured once more")
    parser.add_argument("--write", action="store_true", help="only write the page")
    parser.add_argument("--limit", type=int, default=LIMIT, help="seconds a model")
    options = parser.parse_args(arguments)
    if options.short:
        rows = [measured(*one) for one in SHORT if importlib.util.find_spec(one[0])]
        print("\n".join(f"{row.family}: {row.outcome}, {row.removable:.0%} removable {row.reason}" for row in rows))
        return int(any(row.outcome != "exact" or row.went < 1 or row.trains != "yes" for row in rows))
    if not options.write:
        prepare()
    tidied(RESULTS)
    done = {(row.library, row.family) for row in known(RESULTS) if row.outcome not in options.again}
    for library, family in families() if not options.write else ():
        if family not in options.only if options.only else (library, family) in done:
            continue
        if library != (options.library or library):
            continue
        row = in_a_process(library, family, options.limit)
        append(RESULTS, row)
        print(f"{library} {family} {row.model}: {row.outcome} {row.removable:.0%} {row.reason}", flush=True)
    PAGE.write_text(page(tidied(RESULTS)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
