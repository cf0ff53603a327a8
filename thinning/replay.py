"""Compare a second run with the first, operation by operation."""


class Replay:
    """Placeholder."""
