"""Reports that one can open: one HTML file a folder, of the same data as the text, without anything from outside."""

from .many import write_comparison_report
from .run import write_report

__all__ = ["write_comparison_report", "write_report"]
