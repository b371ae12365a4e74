"""Plan files of the command line: JSON, or CVRPLIB solutions, which hold sequences alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wardwise.fleet.schedule import schedule
from wardwise.io import (
    read_plan,
    read_solution,
    require_sequences,
    solution_of,
    write_plan,
    write_solution,
)

if TYPE_CHECKING:
    from pathlib import Path

    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

SOLUTION = ".sol"


def require_plan_fits(instance: Instance, target: Path) -> None:
    """Refuse, before the search, a file that cannot hold a plan of `instance`."""
    if target.suffix == SOLUTION:
        require_sequences(instance)


def write_plan_file(plan: Plan, metres: float, target: Path) -> None:
    """Write a plan as JSON, or its sequences where the name ends in ``.sol``."""
    if target.suffix == SOLUTION:
        write_solution(solution_of(plan, metres), target)
    else:
        write_plan(plan, target)


def read_plan_file(instance: Instance, path: Path) -> Plan:
    """Read a plan; sequences are driven as early as can be, by the robots in their order.

    Raises
    ------
    ValueError
        Also when sequences cannot be driven: a `ScheduleError` if they come too late.
    """
    if path.suffix != SOLUTION:
        return read_plan(path)
    require_sequences(instance)
    routes = read_solution(path).trips()
    if len(routes) > len(instance.robots):
        raise ValueError(
            f"{path}: Route: expected at most {len(instance.robots)} as there are robots, "
            f"got {len(routes)}"
        )
    ids = [robot.id for robot in instance.robots[: len(routes)]]
    return schedule(instance, dict(zip(ids, routes, strict=True)))
