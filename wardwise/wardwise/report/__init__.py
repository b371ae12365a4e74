"""Reports: the figures of a plan, and one HTML page that shows it."""

from wardwise.report.html import write_report
from wardwise.report.kpi import ElectricKpis, Kpis, summarise

__all__ = ["ElectricKpis", "Kpis", "summarise", "write_report"]
