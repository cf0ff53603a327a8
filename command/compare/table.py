"""The table of several runs: what each network costs and reaches, of the dense one's, and which are on the front."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .stored import Network, StoredRun, runs_in

Cost = Callable[[Network], float | None]


def costs(networks: Sequence[Network]) -> dict[str, Cost]:
    """Return what is compared: parameters, MACs, and the latency at each batch size that all networks have."""
    batches = [key for key in networks[0].latency if all(key in other.latency for other in networks)]
    found: dict[str, Cost] = {"parameters": lambda one: one.parameters, "MACs": lambda one: one.macs}
    return found | {f"ms at batch {batch}": _latency(batch) for batch in batches}


def _latency(batch: str) -> Cost:
    return lambda one: one.latency.get(batch)


def on_test(networks: Iterable[Network]) -> bool:
    """Return whether networks are compared by test images: all have been tested; else it is by validation images."""
    return all(one.top1 is not None for one in networks)


def reached(networks: Iterable[Network]) -> Callable[[Network], float | None]:
    """Return what accuracies are compared."""
    tested = on_test(networks)
    return lambda one: one.top1 if tested else one.val_top1


def compressed(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Return the runs that pictures show as points: those whose accuracy is known, without a dense network's own."""
    accuracy = reached(run.thinned for run in runs)
    known = [run for run in runs if accuracy(run.thinned) is not None]
    return [run for run in known if run.thinned.parameters < run.dense.parameters or run.zeros > 0] or known


def dense_points(runs: Sequence[StoredRun]) -> list[tuple[Network, float]]:
    """Return the dense networks that runs began with, and their accuracy on the images of `reached`; each once."""
    accuracy = reached(run.thinned for run in runs)
    known = [(run.dense, accuracy(run.dense)) for run in runs]
    found = {(one.parameters, top1): (one, top1) for one, top1 in known if top1 is not None}
    return list(found.values())


def front(points: Sequence[tuple[float, float | None]]) -> list[int]:
    """Return which of (cost, accuracy) no other beats: none costs no more, reaches no less, and differs; by cost."""
    known = [(cost, -accuracy, place) for place, (cost, accuracy) in enumerate(points) if accuracy is not None]
    best, found = (0.0, float("inf")), []
    for cost, loss, place in sorted(known):
        if loss < best[1] or (cost, loss) == best:
            best = cost, loss
            found.append(place)
    return found


def table(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Return a row a run: what a sweep set, sizes, shares of the dense network's, accuracies, and its fronts."""
    networks = [run.thinned for run in runs]
    measures = costs(networks)
    accuracy = reached(networks)
    fronts = {name: front([(cost(one) or 0, accuracy(one)) for one in networks]) for name, cost in measures.items()}
    rows = [
        {
            **_named(run, runs),
            "test top1 (%)": run.thinned.top1,
            "validation top1 (%)": run.thinned.val_top1,
            **_sizes(run, measures),
            "front": _fronts({name for name, found in fronts.items() if place in found}, fronts),
        }
        for place, run in enumerate(runs)
    ]
    found = pd.DataFrame(rows)
    return found.loc[:, [name for name in found if not found[name].isna().all()]]


def _fronts(of: set[str], known: Mapping[str, object]) -> str:
    """Return of which costs a run is on the front."""
    return "all" if of == set(known) else ", ".join(name for name in known if name in of)


def _named(run: StoredRun, runs: Sequence[StoredRun]) -> dict[str, Any]:
    """Return what tells a run from the others."""
    told: dict[str, Any] = {"run": run.name}
    for name in ("arch", "dataset"):
        if len({other.text(name) for other in runs}) > 1:
            told[name] = run.text(name)
    return told


def _sizes(run: StoredRun, measures: Mapping[str, Cost]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, cost in measures.items():
        told[name], dense = cost(run.thinned), cost(run.dense)
        if name in ("parameters", "MACs"):
            told[f"{name} (%)"] = 100 * (told[name] or 0) / (dense or 1)
    return told


def compare(folders: Iterable[str | Path]) -> pd.DataFrame:
    """Return the table of finished runs.

    Args:
        folders: of runs, or of sweeps, which stand for all of their runs.

    Raises:
        CheckpointError: a folder holds no finished run, or a damaged one.
    """
    return table(runs_in(map(Path, folders)))
