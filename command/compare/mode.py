"""`--compare RUN RUN ...`: the table, the picture and the report of finished runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from potstill.compression import format_table
from potstill.thinning.files.text import csv_text

from ..cli.options import Options
from ..plots.tradeoff import plot_tradeoff
from ..report import write_comparison_report
from ..run.folder import RunFolder
from .stored import StoredRun, runs_in
from .table import table

logger = logging.getLogger("potstill")


def compare_runs(options: Options, folders: Sequence[Path]) -> None:
    """Print the table of finished runs, and write it with its picture into a folder.

    Raises:
        CheckpointError: one is not finished, or damaged.
    """
    runs = runs_in(folders)
    folder = RunFolder.new(options.output.out_dir, options.output.name or "compare")
    try:
        written = write_comparison(runs, folder, options.output.table, "compare")
        logger.info("wrote %s", ", ".join(map(str, [*written, write_comparison_report(folder.path, runs)])))
    finally:
        folder.close()


def write_comparison(runs: Sequence[StoredRun], folder: RunFolder, form: str, name: str) -> list[Path]:
    """Print the table; write it as CSV, and draw the picture where matplotlib is installed. Return the files."""
    found = table(runs)
    logger.info("%s", format_table(found.round(2), form))
    written = [folder.write_text(f"{name}.csv", csv_text([list(found), *found.to_numpy().tolist()]))]
    if find_spec("matplotlib") is None:
        logger.info('the picture needs the extra "plot": pip install "potstill[plot]"')
        return written
    return [*written, *plot_tradeoff(runs, folder.path / name)]
