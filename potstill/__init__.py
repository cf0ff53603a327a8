"""Compression of PyTorch networks by schedule: prune, regularize, gate, then thin and prove it.

The names that most programs need, loaded when they are first used; all others are in `potstill.compression`,
`potstill.thinning` and `potstill.models`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import plots
    from .compression import (
        CompressionScheduler,
        ScheduleError,
        adopt_torch_pruning,
        file_config,
        load_checkpoint,
        prune_channels,
        save_checkpoint,
    )
    from .thinning import Recipe, ThinningError, load, save, thin

__version__ = "0.1.0"

_HOMES = {
    "compression": (
        "CompressionScheduler",
        "ScheduleError",
        "adopt_torch_pruning",
        "file_config",
        "load_checkpoint",
        "prune_channels",
        "save_checkpoint",
    ),
    "thinning": ("Recipe", "ThinningError", "load", "save", "thin"),
}

__all__ = [
    "CompressionScheduler",
    "Recipe",
    "ScheduleError",
    "ThinningError",
    "__version__",
    "adopt_torch_pruning",
    "file_config",
    "load",
    "load_checkpoint",
    "plots",
    "prune_channels",
    "save",
    "save_checkpoint",
    "thin",
]


def __getattr__(name: str) -> Any:
    """Import a name where it lives: `import potstill` alone loads no torch."""
    if name == "plots":
        return import_module(f"{__name__}.plots")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
