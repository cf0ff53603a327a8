"""What users import is public: exported by a package or at its top level, documented, and listed in the page."""

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import get_origin

import pytest

from potstill.compression import registered

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text().partition("## What is public")[2]
LISTED = set(re.findall(r"`(potstill[a-z_.]*)`", PAGE))
DEEPEST = 3
"""potstill.package.file_or_room: nothing deeper is public."""


def imports():
    """(where, module, name) of each import of ours in the documentation's code and the examples."""
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    codes = [(page, code) for page in pages for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
    codes += [(path, path.read_text()) for path in (ROOT / "examples").glob("*.py")]
    for path, code in codes:
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "potstill":
                yield from ((path.name, node.module, alias.name) for alias in node.names)


USED = sorted(set(imports()))


def names_of(module):
    """What a module offers; the classes of schedules, which their packages find by name, as well."""
    given = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    section = module.__name__.rpartition(".")[2]
    by_name = registered(section) if section in ("pruners", "regularizers") else ()
    return {*given, *by_name}


def opened(module):
    """The module; the test is left out where it needs an extra that is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if "needs the extra" not in str(error):
            raise
        pytest.skip(str(error))


def test_there_is_something_to_compare():
    assert len(USED) > 20 and len(LISTED) > 10


@pytest.mark.parametrize(("page", "module", "name"), USED)
def test_what_pages_import_is_public(page, module, name):
    assert module in LISTED, f"{page}: docs/extending.md does not list {module}"
    assert module.count(".") < DEEPEST
    found = opened(module)
    assert name in names_of(found), f"{page}: {module} does not export {name}"
    assert getattr(found, name).__doc__ or get_origin(getattr(found, name))  # an alias of a type has none


@pytest.mark.parametrize("module", sorted(LISTED))
def test_listed_modules_hold_what_they_promise(module):
    found = opened(module)
    assert found.__doc__
    for name in getattr(found, "__all__", []):
        assert hasattr(found, name), f"{module}.{name}"
