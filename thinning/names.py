"""Names of parameters and modules: one name, whatever DataParallel and `torch.compile` put into it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator

from torch import nn

WRAPPERS = {"module", "_orig_mod"}
_COMPILED: weakref.WeakKeyDictionary[nn.Module, weakref.ref[nn.Module]] = weakref.WeakKeyDictionary()
"""Networks that were taken out of a compiled one, and that one: hooks on the network itself come too late for it."""


def normalise(name: str) -> str:
    """Return the name without what wrappers put into it: `module.features.module.0.weight` is `features.0.weight`."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network that DataParallel, DistributedDataParallel and `torch.compile` were given."""
    compiled, inner = None, model
    while True:
        if isinstance(inner, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = inner.module
        elif "_orig_mod" in inner._modules:
            compiled = inner if compiled is None else compiled
            inner = inner.get_submodule("_orig_mod")
        else:
            break
    if compiled is not None:
        _COMPILED[inner] = weakref.ref(compiled)
    return inner


def compiled_of(model: nn.Module) -> nn.Module | None:
    """Return the compiled module that `unwrapped` took a network out of, while that one exists."""
    known = _COMPILED.get(model)
    return None if known is None else known()


def spelling(names: Iterable[str]) -> Callable[[str], str]:
    """Return a function that spells a name as one of `names` is spelled; what fits none, or several, stays as it is."""
    return _Spelling(names)


class _Spelling:
    """The function, as an object that can be pickled."""

    def __init__(self, names: Iterable[str]) -> None:
        self._known = set(names)
        self._normal: dict[str, list[str]] = {}
        for name in self._known:
            self._normal.setdefault(normalise(name), []).append(name)

    def __call__(self, name: str) -> str:
        if name in self._known:
            return name
        same = self._normal.get(normalise(name), [])
        return same[0] if len(same) == 1 else name


def holders(model: nn.Module, name: str, attribute: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that a name fits and that have an attribute, which a wrapper has not.

    The one of just this name comes first, then those that wrappers hold.
    """
    own = attribute.partition(".")[0]
    same = [(found, module) for found, module in model.named_modules() if normalise(found) == normalise(name)]
    yield from (pair for pair in sorted(same, key=lambda pair: pair[0] != name) if hasattr(pair[1], own))
