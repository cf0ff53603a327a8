"""Mathematics that pruners and regularizers share: scores, selection, sparsities, structures of a tensor."""

from .selection import count, keep_highest

__all__ = ["count", "keep_highest"]
