"""Sweeps: the runs that a scaling law is fitted to, made once each, on many cores or machines.

`read_sweep` and `run_sweep` are the entries; the other names are what they take and return.
"""

from weightwise.sweep.estimate import Estimate, estimate, time_left
from weightwise.sweep.grid import Sweep, read_sweep
from weightwise.sweep.journal import read_records
from weightwise.sweep.run import SweepResult, run_sweep

__all__ = [
    "Estimate",
    "Sweep",
    "SweepResult",
    "estimate",
    "read_records",
    "read_sweep",
    "run_sweep",
    "time_left",
]
