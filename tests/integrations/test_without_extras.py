"""Without its framework a module says which extra brings it."""

import importlib
import sys

import pytest


@pytest.mark.parametrize("name", ["lightning", "transformers"])
def test_the_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, f"potstill.integrations.{name}", raising=False)
    for known in [known for known in sys.modules if known.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, known)
    with pytest.raises(ModuleNotFoundError, match=rf'pip install "potstill\[{name}\]"'):
        importlib.import_module(f"potstill.integrations.{name}")
