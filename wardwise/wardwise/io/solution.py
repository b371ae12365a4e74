"""Solutions of CVRPLIB: ``Route #1: 4 7 2`` a line, then ``Cost 123``.

They hold sequences only, no times. Customers carry the numbers that are the
request ids of instances read from Solomon and VRPLIB text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.errors import InputError, quote
from wardwise.io.files import read_text, write_text
from wardwise.io.text import Row, decimal, rows

if TYPE_CHECKING:
    import os

_ROUTE = re.compile(r"Route\s*#?\s*([0-9]{1,9})\s*:(.*)", re.IGNORECASE)
_COST = re.compile(r"Cost\s*:?\s*(\S+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Request ids in visiting order, one tuple a robot, and the stated cost."""

    routes: tuple[tuple[str, ...], ...]
    cost: float | None = None


def read_solution(path: str | os.PathLike[str]) -> Solution:
    """Read a CVRPLIB ``.sol`` file; the sequences are not judged here.

    Raises
    ------
    InputError
        Naming line and field: routes are numbered 1, 2, …, hold whole numbers
        above 0, and no customer stands twice.
    """
    routes: list[tuple[str, ...]] = []
    cost: float | None = None
    seen: set[str] = set()
    for row in rows(path, read_text(path)):
        route = _ROUTE.fullmatch(row.text)
        stated = _COST.fullmatch(row.text)
        if route is not None:
            if cost is not None or int(route[1]) != len(routes) + 1:
                problem = f"expected Route #{len(routes) + 1} before the cost, got #{route[1]}"
                raise row.error("Route", problem)
            routes.append(_read_route(row, route[2], seen))
        elif stated is not None and cost is None:
            cost = Row(path=path, line=row.line, words=(stated[1],)).number(0, "Cost")
        else:
            problem = f"expected a route or one cost, got {quote(row.text)}"
            raise InputError(path, problem, line=row.line)
    if not routes:
        raise InputError(path, "expected at least one, got none", field="Route")
    return Solution(routes=tuple(routes), cost=cost)


def write_solution(solution: Solution, path: str | os.PathLike[str]) -> None:
    """Write a CVRPLIB ``.sol`` file that reads back equal.

    Raises
    ------
    ValueError
        If a request id is no whole number above 0.
    OSError
        If the file cannot be written.
    """
    for request in (request for route in solution.routes for request in route):
        if not re.fullmatch("[1-9][0-9]*", request):
            raise ValueError(f"routes: expected whole numbers above 0, got {quote(request)}")
    lines = [f"Route #{k}: {' '.join(route)}" for k, route in enumerate(solution.routes, start=1)]
    if solution.cost is not None:
        lines.append(f"Cost {decimal(solution.cost)}")
    write_text(path, "\n".join(lines) + "\n")


def _read_route(row: Row, text: str, seen: set[str]) -> tuple[str, ...]:
    """Read the customer numbers of a route and note them in `seen`."""
    words = Row(path=row.path, line=row.line, words=tuple(text.split()))
    route = tuple(str(words.integer(k, "customer", minimum=1)) for k in range(len(words.words)))
    if not route:
        raise row.error("Route", "expected at least one customer, got none")
    for request in route:
        if request in seen:
            raise row.error("customer", f"expected each number once, got {request} again")
        seen.add(request)
    return route
