"""Break the rules of thinning one line at a time and see whether a test notices.

    python benchmarks/rule_mutants.py                  # every mutant: about half an hour on one core
    python benchmarks/rule_mutants.py conv norm        # those of two files of thinning/tracing/rules
    python benchmarks/rule_mutants.py --every 25       # each 25th, to see that the script works

A mutant is a copy of one rule file in which one statement is left out, one condition is turned round, one value that is
known is forgotten, or a whole rule gives up. It replaces the real file in a forked process, which runs the tests that
call the changed function, the quickest first, until one fails. Nothing is written but the table at the end: mutants
that no test notices, each with file, line and text. A mutant that changes nothing but speed or a reason is no fault of
the tests; EQUIVALENT names those, with why.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import itertools
import os
import signal
import sys
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

ROOT = Path(__file__).resolve().parent.parent
RULES = "potstill.thinning.tracing.rules"
TESTS = [str(path) for path in sorted((ROOT / "tests/thinning").glob("test_*.py")) if path.stem != "test_models"]
OPTIONS = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "--import-mode=importlib", "-o", "addopts="]
SECONDS = 90
EQUIVALENT: dict[tuple[str, str], str] = {}
"""(file, text of the line): why no test can notice."""


@dataclass(frozen=True)
class Mutant:
    """A changed source of a rule file."""

    file: str
    function: str
    line: int
    what: str
    tree: ast.Module


def mutants(file: str, source: str) -> Iterator[Mutant]:
    """Yield each mutant of a file's functions."""
    lines = source.splitlines()
    for number, each in enumerate(ast.walk(ast.parse(source))):
        if not _change(each):
            continue
        tree = ast.parse(source)
        parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        node = next(itertools.islice(ast.walk(tree), number, None))
        what, function = _change(node), _function(node, parents)
        if function:
            line = getattr(node, "lineno", 0) or parents[node].lineno
            yield Mutant(file, function, line, f"{what}: {lines[line - 1].strip()}", ast.fix_missing_locations(tree))


def _change(node: ast.AST) -> str:
    """Change a node in place; return what was done, nothing where it is none to change."""
    if isinstance(node, ast.If):
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return "turned round"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        node.value = ast.Constant(None)
        return "left out"
    if isinstance(node, ast.keyword) and node.arg == "value" and not isinstance(node.value, ast.Constant):
        node.value = ast.Constant(None)
        return "value forgotten"
    if isinstance(node, ast.FunctionDef) and any(_is_rule(each) for each in node.decorator_list):
        node.body = ast.parse("call.give_up('mutant')").body
        return "gives up"
    return ""


def _is_rule(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == "rule"


def _function(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> str:
    name = ""
    while True:
        if isinstance(node, ast.FunctionDef):
            name = node.name
        if node not in parents:
            return name
        node = parents[node]


def install(mutant: Mutant) -> None:
    """Replace the functions of a rule file, wherever they were imported."""
    module = importlib.import_module(f"{RULES}.{mutant.file}")
    old = {name: value for name, value in vars(module).items() if isinstance(value, types.FunctionType)}
    exec(compile(mutant.tree, str(module.__file__), "exec"), vars(module))
    new = {id(value): vars(module)[name] for name, value in old.items() if value.__module__ == module.__name__}
    for other in [m for name, m in sys.modules.items() if name.startswith("potstill.thinning")]:
        for name, value in list(vars(other).items()):
            if id(value) in new:
                setattr(other, name, new[id(value)])


class Trials:
    """A plugin of pytest: notes which rule functions each test calls, then runs these tests on each mutant."""

    def __init__(self, chosen: list[Mutant], most: int) -> None:
        self.chosen, self.most, self.missed = chosen, most, 0
        self.tests: dict[tuple[str, str], list[tuple[float, int]]] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run all tests once as they are, then those concerned on each mutant."""
        for number, item in enumerate(session.items):
            self._profiled(number, item)
        print(f"{len(session.items)} tests, {len(self.chosen)} mutants", flush=True)
        for mutant in self.chosen:
            tests = [session.items[i] for _, i in sorted(self.tests.get((mutant.file, mutant.function), ()))]
            tests = tests[: self.most]
            if not tests or survives(mutant, tests):
                known = EQUIVALENT.get((mutant.file, mutant.what))
                self.missed += known is None
                note = f"  [{known}]" if known else "" if tests else "  [no test calls it]"
                print(f"{mutant.file}.py:{mutant.line} {mutant.function}: {mutant.what}{note}", flush=True)
        return True

    def _profiled(self, number: int, item: pytest.Item) -> None:
        called: set[tuple[str, str]] = set()

        def profile(frame: types.FrameType, event: str, _: Any) -> None:
            if event == "call" and "/tracing/rules/" in frame.f_code.co_filename:
                called.add((Path(frame.f_code.co_filename).stem, frame.f_code.co_name))

        begin = time.process_time()
        sys.setprofile(profile)
        passed = all(report.passed for report in runtestprotocol(item, log=False))
        sys.setprofile(None)
        for key in called if passed else ():
            self.tests.setdefault(key, []).append((time.process_time() - begin, number))


def survives(mutant: Mutant, tests: list[pytest.Item]) -> bool:
    """Run tests on a mutant in a forked process; return whether all pass."""
    child = os.fork()
    if not child:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # a mutant may never end
        code = 0
        try:
            install(mutant)
            for test in tests:
                if not all(report.passed for report in runtestprotocol(test, log=False)):
                    code = 1
                    break
        except BaseException:
            code = 1
        os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def main() -> int:
    """Run what the command line says; return whether some mutant is noticed by no test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="names of rule files, without .py (all by default)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th mutant only")
    parser.add_argument("--most", type=int, default=10_000, metavar="N", help="the N quickest tests of each only")
    options = parser.parse_args()
    os.chdir(ROOT)
    sources = {path.stem: path.read_text() for path in sorted((ROOT / "thinning/tracing/rules").glob("[a-z]*.py"))}
    trials = Trials(
        [m for file in options.files or sources for m in mutants(file, sources[file])][:: options.every], options.most
    )
    pytest.main([*OPTIONS, *TESTS], plugins=[trials])
    print(f"{len(trials.chosen) - trials.missed} of {len(trials.chosen)} are noticed or make no difference")
    return int(trials.missed > 0)


if __name__ == "__main__":
    sys.exit(main())
