"""The one exception of this package."""


class DatasetError(ValueError):
    """A data set cannot be used as asked: one line that says what is wrong, where, and what to do."""
