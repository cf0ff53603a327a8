"""Pictures, as functions that return a matplotlib figure."""
