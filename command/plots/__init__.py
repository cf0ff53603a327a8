"""Pictures of the command line alone; those that notebooks have too are in `potstill.plots`."""

from importlib.util import find_spec

from ..errors import UsageError


def require_matplotlib() -> None:
    """Say early that pictures cannot be drawn.

    Raises:
        UsageError: the extra is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UsageError('--plot needs the extra "plot": pip install "potstill[plot]"')
