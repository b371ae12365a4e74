"""The demo's page."""

from weightwise.report.page import render_page, write_page
from weightwise.report.runs import Curves, read_curves
from weightwise.report.size import WeightBytes, weight_bytes
from weightwise.report.story import Arm, Story

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
