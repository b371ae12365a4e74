"""Small instances to proven optimality: all ways of a robot, then a set partition.

The method for `solve` is `run_exact(instance, *, time_limit=60.0) -> Plan`.
"""

from wardwise.fleet.exact.solve import MAX_REQUESTS, Solved, run_exact, solve_exact

__all__ = ["MAX_REQUESTS", "Solved", "run_exact", "solve_exact"]
