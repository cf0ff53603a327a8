"""Finished runs side by side: a table, the picture of accuracy over size, latency and MACs, and the front."""

from .stored import Network, StoredRun, read_run, runs_in
from .table import compare, front

__all__ = ["Network", "StoredRun", "compare", "front", "read_run", "runs_in"]
