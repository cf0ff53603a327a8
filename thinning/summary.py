"""The channel classes of a model as readable text."""

from __future__ import annotations

from .graph import ChannelClass, ChannelGraph
from .recipe import table


def channels_text(graph: ChannelGraph) -> str:
    """Return each class of channels: size, status and reason, uses as parameter[dim]."""
    return table(("channels", "status", "uses", "reason"), [_row(group) for group in graph.classes()])


def _row(group: ChannelClass) -> tuple[object, ...]:
    uses = " ".join(f"{name}[{dim}]" for name, dim, role in group.uses if role != "vector") or group.uses[0][0]
    return len(group.channels), group.status, uses, group.reason
