"""Break the rules of thinning one line at a time and see whether a test notices.

    python benchmarks/rule_mutants.py                  # every mutant
    python benchmarks/rule_mutants.py conv norm:95     # those of a file of thinning/tracing/rules, those of one line
    python benchmarks/rule_mutants.py --every 25       # each 25th, to see that the script works

A mutant is a copy of one rule file in which one statement is left out, one condition is turned round, one value that is
known is forgotten, or a whole rule gives up. It replaces the real file in a forked process, which runs the tests that
execute the changed line until one fails: first those that noticed other mutants of the function, then the quickest.
A test that fails must pass in another process with a copy of the rule file in which nothing is changed. Written is the
table: mutants that no test notices, each with file, line and text. A mutant that changes nothing but speed is no fault
of the tests; EQUIVALENT names those, with why. `--notes FILE` keeps which lines each test executes for the next time.
"""

from __future__ import annotations

import argparse
import ast
import gc
import hashlib
import importlib
import json
import os
import resource
import signal
import sys
import time
import types
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol
from mutants.sources import Mutant, marked, mutants

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "thinning/tracing/rules"
RULES = "potstill.thinning.tracing.rules"
TESTS = [str(path) for path in sorted((ROOT / "tests/thinning").glob("test_*.py")) if path.stem != "test_models"]
OPTIONS = ["-q", "-s", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", "--import-mode=importlib"]
OPTIONS += ["-o", "addopts=", "-m", "not slow"]  # those that run on every change
MEMORY = 16 * 2**30
RAN: set[str] = set()
"""Lines of `marked` rule files that ran."""
EQUIVALENT: dict[tuple[str, str], str] = {}
"""("file.function", what is changed): why no test can notice."""


def install(file: str, tree: ast.Module) -> None:
    """Replace the functions of a rule file, wherever they were imported."""
    module = importlib.import_module(f"{RULES}.{file}")
    old = {name: value for name, value in vars(module).items() if isinstance(value, types.FunctionType)}
    exec(compile(tree, str(module.__file__), "exec"), vars(module))
    new = {id(value): vars(module)[name] for name, value in old.items() if value.__module__ == module.__name__}
    for other in [m for name, m in sys.modules.items() if name.startswith("potstill.thinning")]:
        for name, value in list(vars(other).items()):
            if id(value) in new:
                setattr(other, name, new[id(value)])


def _install_all(change: Callable[[str, ast.Module], ast.Module]) -> None:
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        vars(importlib.import_module(f"{RULES}.{path.stem}"))["__ran__"] = RAN
        install(path.stem, change(path.stem, ast.parse(path.read_text())))


class Trials:
    """A plugin of pytest: finds which lines of rules each test runs, then runs these tests on each mutant."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.chosen, self.options = chosen(options.names)[:: options.every], options
        self.tests: dict[str, list[int]] = {}
        self.seconds: dict[int, float] = {}
        self.noticed: Counter[tuple[str, int]] = Counter()
        self.reliable: dict[tuple[str, int], bool] = {}
        self.counts: Counter[str] = Counter()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run all tests as they are, then those concerned on each mutant."""
        self._read(session.items, self.options.notes)
        gc.freeze()  # a collection in a forked process would touch, and so copy, all memory of this one
        print(f"{len(session.items)} tests, {len(self.chosen)} mutants", flush=True)
        for mutant in self.chosen:
            self._try(mutant, session.items)
        return True

    def _read(self, items: Sequence[pytest.Item], path: Path | None) -> None:
        """Fill in the tests of each line and how long they take, as far as they are not noted for these very files."""
        notes = _notes(path) if path is not None else {}
        rules = _digest(*sorted(FOLDER.glob("*.py")))
        _install_all(marked)
        for number, item in enumerate(items):
            key = f"{item.nodeid} {rules} {_digest(item.path)}"
            if key not in notes:
                notes[key] = lines_of(item)
                if path is not None:  # at once: what was found stays found where a later test ends the process
                    with path.open("a") as file:
                        file.write(json.dumps([key, notes[key]]) + "\n")
            self.seconds[number], lines = notes[key]
            for line in lines:
                self.tests.setdefault(line, []).append(number)
        _install_all(lambda file, tree: tree)

    def _try(self, mutant: Mutant, items: Sequence[pytest.Item]) -> None:
        tests = self._order(mutant)
        while (found := forked(mutant.file, mutant.tree, items, tests, self.seconds)) is not None:
            if self._reliable(mutant.file, found, items):
                break
            tests.remove(found)
        if found is not None:
            self.noticed[mutant.function, found] += 1
        known = EQUIVALENT.get(mutant.key)
        kind = "noticed" if found is not None else "missed" if known is None else "equivalent"
        self.counts[kind] += 1
        note = items[found].nodeid if found is not None else known or ("" if tests else "no test runs it")
        if self.options.all or kind != "noticed" or known:
            print(f"{mutant}  [{kind}{': ' if note else ''}{note}]", flush=True)

    def _order(self, mutant: Mutant) -> list[int]:
        tests = self.tests.get(f"{mutant.file}:{mutant.begin}", ())
        return sorted(tests, key=lambda n: (-self.noticed[mutant.function, n], self.seconds[n]))[: self.options.most]

    def _reliable(self, file: str, number: int, items: Sequence[pytest.Item]) -> bool:
        """Return whether a test passes once more with a copy of the rules in which nothing is changed."""
        if (file, number) not in self.reliable:
            tree = ast.parse((FOLDER / f"{file}.py").read_text())
            self.reliable[file, number] = forked(file, tree, items, [number], self.seconds) is None
        return self.reliable[file, number]


def _notes(path: Path) -> dict[str, tuple[float, list[str]]]:
    """Return what earlier runs noted, by test, rules and test file: a line each."""
    return dict(map(json.loads, path.read_text().splitlines())) if path.exists() else {}


def _digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def lines_of(item: pytest.Item) -> tuple[float, list[str]]:
    """Run a test; return the seconds that it takes and the lines of rule files that run, none if it does not pass."""
    RAN.clear()
    begin = time.process_time()
    passed = all(report.passed for report in runtestprotocol(item, log=False))
    return time.process_time() - begin, sorted(RAN) if passed else []


def forked(
    file: str, tree: ast.Module, items: Sequence[pytest.Item], tests: Sequence[int], seconds: dict[int, float]
) -> int | None:
    """Run tests on a rule file in a forked process until one fails, dies or takes too long; return which it was."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _child(lambda: install(file, tree), items, tests, seconds, writer)
    os.close(writer)
    with os.fdopen(reader) as begun:
        numbers = begun.read().split()
    if os.waitpid(child, 0)[1] == 0:
        return None
    if not numbers:
        raise RuntimeError(f"a mutant of {file} cannot be installed")
    return int(numbers[-1])


def _child(
    prepare: Callable[[], None],
    items: Sequence[pytest.Item],
    tests: Sequence[int],
    seconds: dict[int, float],
    writer: int,
) -> None:
    """Say in a pipe which test begins, so that the parent knows which was the last."""
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        prepare()
        for number in tests:
            os.write(writer, f"{number}\n".encode())
            signal.setitimer(signal.ITIMER_PROF, 5 + 10 * seconds[number])
            if not all(report.passed for report in runtestprotocol(items[number], log=False)):
                break
        else:
            code = 0
    finally:
        os._exit(code)


def chosen(names: Sequence[str]) -> list[Mutant]:
    """Return the mutants of files ("conv") and lines ("norm:95"); of all files without names."""
    names = names or sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
    parts = [name.partition(":") for name in names]
    of = {file: list(mutants(file, (FOLDER / f"{file}.py").read_text())) for file in {file for file, _, _ in parts}}
    found = []
    for file, _, line in parts:
        found += [mutant for mutant in of[file] if not line or mutant.line == int(line)]
    return found


def main() -> int:
    """Run what the command line says; return whether some mutant is noticed by no test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="rule files, without .py, or FILE:LINE (all by default)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th mutant only")
    parser.add_argument("--most", type=int, default=10_000, metavar="N", help="the N likeliest tests of each only")
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="FILE", help="by default those of tests/thinning")
    parser.add_argument("--notes", type=Path, metavar="FILE", help="where to keep which lines each test executes")
    parser.add_argument("--all", action="store_true", help="list those that are noticed, too, each with the test")
    options = parser.parse_args()
    os.chdir(ROOT)
    trials = Trials(options)
    pytest.main([*OPTIONS, *options.tests], plugins=[trials])
    print(", ".join(f"{trials.counts[kind]} {kind}" for kind in ("noticed", "equivalent", "missed")))
    return int(trials.counts["missed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
