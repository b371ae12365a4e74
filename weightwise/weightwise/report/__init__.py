"""The demo's page."""

from weightwise.report.page import Arm, Story, render_page, write_page
from weightwise.report.runs import Curves, read_curves
from weightwise.report.size import WeightBytes, weight_bytes

__all__ = [
    "Arm",
    "Curves",
    "Story",
    "WeightBytes",
    "read_curves",
    "render_page",
    "weight_bytes",
    "write_page",
]
