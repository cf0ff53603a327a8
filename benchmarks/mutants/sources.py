"""Sources of rule files that are changed: by one line, or so that they note which lines run."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A changed source of a rule file."""

    file: str
    function: str
    line: int
    begin: int
    what: str
    tree: ast.Module

    @property
    def key(self) -> tuple[str, str]:
        """Return what names it in EQUIVALENT, whatever its line."""
        return f"{self.file}.{self.function}", self.what

    def __str__(self) -> str:
        return f"{self.file}.py:{self.line} {self.function}: {self.what}"


def mutants(file: str, source: str) -> Iterator[Mutant]:
    """Yield each mutant of a file's functions."""
    lines = source.splitlines()
    for number, each in enumerate(ast.walk(ast.parse(source))):
        if not _change(each):
            continue
        tree = ast.parse(source)
        parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        node = next(itertools.islice(ast.walk(tree), number, None))
        begin, what, function = _first_line(node, parents), _change(node), _function(node, parents)
        if function:
            line, text = node.lineno, lines[node.lineno - 1].strip()  # type: ignore[attr-defined]
            yield Mutant(file, function, line, begin, f"{what}: {text}", ast.fix_missing_locations(tree))


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


def _first_line(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> int:
    """Return the line that runs where a node does: that of its statement, of a function the one after its docstring."""
    while not isinstance(node, ast.stmt):
        node = parents[node]
    if not isinstance(node, ast.FunctionDef):
        return node.lineno
    body: list[ast.stmt] = node.body[ast.get_docstring(node) is not None :]
    # a function of a docstring alone runs the line on which it begins
    return (body or node.decorator_list or [node])[0].lineno


def _function(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> str:
    name = ""
    while True:
        if isinstance(node, ast.FunctionDef):
            name = node.name
        if node not in parents:
            return name
        node = parents[node]


def marked(file: str, tree: ast.Module) -> ast.Module:
    """Return a rule file whose functions add each statement of theirs that runs to `__ran__`, as "file:line".

    A trace function of Python's own would slow down all that a test runs, and rules are little of it.
    """
    for node in list(ast.walk(tree)):
        if isinstance(node, (ast.Module, ast.ClassDef)):
            continue
        first = [_mark(file, _first_line(node, {}))] if isinstance(node, ast.FunctionDef) else []
        for field in ("body", "orelse", "finalbody"):
            old = getattr(node, field, None)
            if isinstance(old, list):  # not that of a lambda
                new = [part for each in old for part in (_mark(file, each.lineno), each)]
                setattr(node, field, [*first, *new] if field == "body" else new)
    return ast.fix_missing_locations(tree)


def _mark(file: str, line: int) -> ast.stmt:
    return ast.parse(f"__ran__.add('{file}:{line}')").body[0]
