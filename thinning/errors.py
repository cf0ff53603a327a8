"""The one exception of the package."""

from .files.text import printable


class ThinningError(RuntimeError):
    """A network cannot be thinned, a recipe does not fit, or a stored network is not what it was."""

    def __init__(self, message: object = "") -> None:
        """Say what is wrong, on one line: names in it may come from a file."""
        super().__init__(printable(message))
