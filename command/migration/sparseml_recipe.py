"""Reads SparseML's recipes: YAML whose tags name modifiers, alone or in front of a page of Markdown. Nothing is run."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.compression.language.errors import Report, ScheduleError
from potstill.compression.language.yaml_reader import MAX_BYTES, TAG, decode, read
from potstill.thinning.files.regular import read_whole

FENCE = re.compile(r"^---\s*$", re.MULTILINE)
EXPRESSION = re.compile(r"eval\((.*)\)", re.DOTALL)
LONGEST = 200
OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.USub: operator.neg,
}


@dataclass(frozen=True)
class Modifier:
    """One entry of a recipe: its kind (`GMPruningModifier`), its line, its fields with expressions worked out."""

    kind: str
    line: int
    fields: Mapping[str, Any]


def read_recipe(path: Path) -> list[Modifier]:
    """Return the modifiers of a recipe, in its order.

    Raises:
        ScheduleError: it is not YAML, has no modifiers, or an expression cannot be worked out.
        OSError: the file cannot be read.
    """
    report = Report(str(path))
    text = decode(read_whole(path, MAX_BYTES, links=True), report)
    document = read(_front_matter(text), report, takes_tags=True) if text is not None else None
    data = document.data if document else None
    found: list[Modifier] = []
    if document is not None and isinstance(data, dict):
        report.lines = document.lines
        found = list(_modifiers(data, _variables(data), report))
        if not found and not report.problems:
            report.error((), "has no modifiers: a recipe of SparseML lists some, such as !EpochRangeModifier")
    elif not report.problems:
        report.error((), "is no recipe: a mapping with a list of modifiers is")
    if report.problems:
        raise ScheduleError(report.problems)
    return found


def _front_matter(text: str) -> str:
    """Return the YAML between the first two lines of `---`, in its lines; the whole text where there are none."""
    fences = list(FENCE.finditer(text))
    if len(fences) < 2:
        return text
    begin, end = fences[0].end(), fences[1].start()
    return "\n" * text.count("\n", 0, begin) + text[begin:end]


def _variables(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if not isinstance(value, (dict, list))}


def _modifiers(
    data: Mapping[str, Any], variables: Mapping[str, Any], report: Report, above: tuple[str, ...] = ()
) -> Iterator[Modifier]:
    """Yield those of all lists `…modifiers`, of stages too."""
    for key, value in data.items():
        path = (*above, key)
        if key.endswith("modifiers") and isinstance(value, (list, dict)):
            for place, entry in _entries(value):
                found = _modifier(entry, (*path, place), variables, report)
                if found is not None:
                    yield found
        elif isinstance(value, dict) and not above:
            yield from _modifiers(value, {**variables, **_variables(value)}, report, path)


def _entries(modifiers: list[Any] | dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield (place, entry); in newer recipes kinds are keys, without tags."""
    if isinstance(modifiers, list):
        yield from enumerate(modifiers)
        return
    for kind, fields in modifiers.items():
        yield kind, {TAG: kind, **fields} if isinstance(fields, dict) else {TAG: kind}


def _modifier(entry: Any, path: tuple[Any, ...], variables: Mapping[str, Any], report: Report) -> Modifier | None:
    if not isinstance(entry, dict) or TAG not in entry:
        report.error(path, "is no modifier: one begins with !, such as !GMPruningModifier")
        return None
    fields = {}
    for name, value in entry.items():
        if name != TAG:
            try:
                fields[name] = _worked_out(value, variables)
            except (ValueError, ArithmeticError, SyntaxError, RecursionError, TypeError) as error:
                report.error((*path, name), f"the expression cannot be worked out: {error}")
    return Modifier(entry[TAG], report.lines.get(path, 0), fields)


def _worked_out(value: Any, variables: Mapping[str, Any]) -> Any:
    """Return a value in which each `eval(…)` of numbers and variables is a number."""
    if isinstance(value, list):
        return [_worked_out(item, variables) for item in value]
    if isinstance(value, dict):
        return {key: _worked_out(item, variables) for key, item in value.items()}
    found = EXPRESSION.fullmatch(value) if isinstance(value, str) else None
    return value if found is None else calculate(found[1], variables)


def calculate(text: str, variables: Mapping[str, Any], depth: int = 0) -> float:
    """Return what an expression of numbers, variables, + - * / // and brackets amounts to.

    Raises:
        ValueError: something else stands in it, or a variable has no value.
        ArithmeticError: a division by zero.
        SyntaxError: it is no expression.
    """
    if len(text) > LONGEST or depth > 10:
        raise ValueError("it is too long")
    names = {name: value for name, value in variables.items() if isinstance(name, str)}

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return node.value  # type: ignore[return-value]
        if isinstance(node, ast.Name) and type(names.get(node.id)) in (int, float):
            return float(names[node.id])
        if isinstance(node, ast.Name) and isinstance(names.get(node.id), str):
            inner = EXPRESSION.fullmatch(names[node.id])
            if inner is not None:
                return calculate(inner[1], variables, depth + 1)
        if isinstance(node, (ast.BinOp, ast.UnaryOp)) and type(node.op) in OPERATORS:
            parts = [node.left, node.right] if isinstance(node, ast.BinOp) else [node.operand]
            return float(OPERATORS[type(node.op)](*map(value, parts)))
        raise ValueError(f"{ast.unparse(node)[:40]!r} is neither a number nor a variable with one")

    return value(ast.parse(text.strip(), mode="eval").body)
