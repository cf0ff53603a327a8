"""The one exception of the package."""


class ThinningError(RuntimeError):
    """A network cannot be thinned, a recipe does not fit, or a stored network is not what it was."""
