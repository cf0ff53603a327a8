"""Thins small networks of public packages that are no dependencies, and writes what came of it as a table.

    python benchmarks/other_packages                      all networks whose package is installed
    python benchmarks/other_packages diffusers unet_2d    those of a package, or of a name

The packages are not needed for anything else: install them beside (`pip install --no-deps diffusers`). A network whose
package is not there, or that this version of it does not build, keeps the row that it has. Each file beside this one
has the networks of a domain: `NETWORKS` maps (package, name) to a function that returns a model and inputs. Everything
is measured as in benchmarks/coverage.py; results go to docs/results/other_packages.csv and docs/other_packages.md.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
import coverage  # noqa: E402

ROOT = HERE.parents[1]
RESULTS, PAGE = ROOT / "docs/results/other_packages.csv", ROOT / "docs/other_packages.md"
LIMIT = 100
"""Seconds of the processor that a network may take."""
HEAD = """# Other packages

Small networks of public packages other than timm and transformers, thinned by
`python benchmarks/other_packages`: of every class of removable channels 30 % are zeroed, `thin` removes them and
compares the outputs. None of the packages is a dependency. The columns are those of [coverage](coverage.md); times are
seconds of one processor of a busy machine, and the *main reason* is why most of the others stay.

"""
COLUMNS = ("package", "network", "class", "outcome", "parameters", "left", "removable", "went", "difference")
COLUMNS += ("trace s", "thin s", "main reason")
"""Those from the fifth to the last but one are numbers."""


def networks() -> dict[tuple[str, str], Callable[[], tuple[Any, Any]]]:
    """Return the networks of all domains."""
    domains = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    return {key: build for name in domains for key, build in importlib.import_module(name).NETWORKS.items()}


def version_of(package: str) -> str:
    """Return the version of a package that is installed; nothing where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def measured(package: str, name: str, build: Callable[[], tuple[Any, Any]]) -> coverage.Row:
    """Thin a network in a process of its own."""

    def make(_: str) -> tuple[str, Any, Any]:
        model, inputs = build()
        return type(model).__name__, model.requires_grad_(True), inputs

    return coverage.in_a_process(f"{package} {version_of(package)}", name, LIMIT, make)


def line(row: coverage.Row) -> str:
    """Return a row of the table."""
    start = f"| {row.library} | {row.family} | {row.model} | {row.outcome} | {row.parameters:,} "
    reason = textwrap.shorten(row.reason.replace("|", "/"), 90, placeholder=" …")
    if row.outcome != "exact":
        return f"{start}| | | | | | | {reason} |"
    shares = f"{row.left:,} | {row.removable:.0%} | {row.went:.0%} | {row.difference:.0e}"
    return f"{start}| {shares} | {row.trace:.1f} | {row.thin:.1f} | {reason} |"


def head() -> str:
    """Return the head of the page, down to that of the table."""
    rules = ["---"] * 4 + ["--:"] * (len(COLUMNS) - 5) + ["---"]
    return HEAD + "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in (COLUMNS, rules))


def key_of(row: coverage.Row) -> tuple[str, str]:
    """Return package and name."""
    return row.library.partition(" ")[0], row.family


def main(names: list[str]) -> int:
    """Run the networks that are asked for and write the page."""
    coverage.prepare()
    rows = {key_of(row): row for row in coverage.known(RESULTS)}
    for key, build in networks().items():
        if not version_of(key[0]) or (names and not set(names) & set(key)):
            continue
        row = measured(*key, build)
        print(f"{row.library} {row.family}: {row.outcome} {row.removable:.0%} {row.reason}", flush=True)
        if row.outcome != "fails":
            rows[key] = row
            write([row for _, row in sorted(rows.items())])
    return 0


def write(rows: list[coverage.Row]) -> None:
    """Write results and page; after each network, so that a run may be ended."""
    RESULTS.unlink(missing_ok=True)
    for row in rows:
        coverage.append(RESULTS, row)
    PAGE.write_text(head() + "".join(f"{line(row)}\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
