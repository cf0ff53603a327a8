"""Names of parameters and modules: one name, whatever DataParallel and `torch.compile` put into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from torch import nn

WRAPPERS = {"module", "_orig_mod"}


def normalise(name: str) -> str:
    """Return the name without what wrappers put into it: `module.features.module.0.weight` is `features.0.weight`."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network that DataParallel, DistributedDataParallel and `torch.compile` were given."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif "_orig_mod" in model._modules:
            model = model.get_submodule("_orig_mod")
        else:
            return model


def spelling(names: Iterable[str]) -> Callable[[str], str]:
    """Return a function that spells a name as one of `names` is spelled; what fits none, or several, stays as it is."""
    known = set(names)
    normal: dict[str, list[str]] = {}
    for name in known:
        normal.setdefault(normalise(name), []).append(name)

    def spell(name: str) -> str:
        if name in known:
            return name
        same = normal.get(normalise(name), [])
        return same[0] if len(same) == 1 else name

    return spell


def modules_called(model: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Give the modules that a name fits: the one of just this name first, then those that wrappers hold."""
    same = [(found, module) for found, module in model.named_modules() if normalise(found) == normalise(name)]
    yield from sorted(same, key=lambda pair: pair[0] != name)
