"""Solutions of CVRPLIB: ``Route #1: 4 7 2`` a line, then ``Cost 123``.

They hold sequences only, no times. Customers carry the numbers that are the
request ids of instances read from Solomon and VRPLIB text. A 0 between two customers is
a return to the depot, to reload: ``Route #1: 4 7 0 2`` makes two trips.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.errors import InputError, quote
from wardwise.fleet.problem import Kind
from wardwise.io.files import read_text, write_text
from wardwise.io.plain import DEPOT_ID
from wardwise.io.text import Row, decimal, rows

if TYPE_CHECKING:
    import os

    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

_ROUTE = re.compile(r"Route\s*#?\s*([0-9]{1,9})\s*:(.*)", re.IGNORECASE)
_COST = re.compile(r"Cost\s*:?\s*(\S+)", re.IGNORECASE)
# What other writers say about the cost; nothing depends on it here.
_OPTIMAL = re.compile(r"Optimal\s*:\s*(?:True|False)", re.IGNORECASE)
_CUSTOMER = re.compile("[1-9][0-9]*")
DIGITS = 9


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Request ids in visiting order, one tuple a robot, and the stated cost.

    ``"0"`` between two ids is a return to the depot.
    """

    routes: tuple[tuple[str, ...], ...]
    cost: float | None = None

    def trips(self) -> list[list[list[str]]]:
        """Trips of each robot, each the ids of its requests."""
        found: list[list[list[str]]] = []
        for route in self.routes:
            found.append([[]])
            for id_ in route:
                if id_ == DEPOT_ID:
                    found[-1].append([])
                else:
                    found[-1][-1].append(id_)
        return found


def solution_of(plan: Plan, cost: float) -> Solution:
    """Sequences of a plan; times, denials and who drives get lost.

    Parameters
    ----------
    plan
        For an instance that `require_sequences` lets pass.
    cost
        Usually the metres of the plan, as the checker has them.
    """
    routes: dict[str, list[str]] = {}
    for trip in sorted(plan.trips, key=lambda trip: trip.depart_s):
        ids = [stop.request for stop in trip.stops]
        route = routes.setdefault(trip.robot, [])
        route += [DEPOT_ID, *ids] if route else ids
    # Sums of decimal lengths, like 0.1 + 0.2, are told as they are meant.
    return Solution(routes=tuple(map(tuple, routes.values())), cost=round(cost, DIGITS))


def require_sequences(instance: Instance) -> None:
    """Refuse an instance whose plans are more than sequences of numbers.

    Raises
    ------
    ValueError
        If robots have batteries, loads go from ward to ward, or a request id is no whole
        number above 0.
    """
    if instance.batteries:
        raise ValueError("robots: expected no batteries for a .sol file, got some")
    for request in instance.requests:
        if request.kind is Kind.TRANSFER:
            raise ValueError(f"request {request.id!r}: expected no transfer for a .sol file")
        if not _CUSTOMER.fullmatch(request.id):
            raise ValueError(
                f"request {request.id!r}: expected a whole number above 0 for a .sol file"
            )


def read_solution(path: str | os.PathLike[str]) -> Solution:
    """Read a CVRPLIB ``.sol`` file; the sequences are not judged here.

    Raises
    ------
    InputError
        Naming line and field: routes are numbered 1, 2, …, hold whole numbers
        above 0, with a 0 between trips, and no customer stands twice.
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
        elif _OPTIMAL.fullmatch(row.text):
            continue
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
    for request in (id_ for trips in solution.trips() for trip in trips for id_ in trip):
        if not _CUSTOMER.fullmatch(request):
            raise ValueError(f"routes: expected whole numbers above 0, got {quote(request)}")
    lines = [f"Route #{k}: {' '.join(route)}" for k, route in enumerate(solution.routes, start=1)]
    if solution.cost is not None:
        lines.append(f"Cost {decimal(solution.cost)}")
    write_text(path, "\n".join(lines) + "\n")


def _read_route(row: Row, text: str, seen: set[str]) -> tuple[str, ...]:
    """Read the customer numbers of a route and note them in `seen`."""
    words = Row(path=row.path, line=row.line, words=tuple(text.split()))
    if not words.words:
        raise row.error("Route", "expected at least one customer, got none")
    route: list[str] = []
    for k, word in enumerate(words.words):
        # A depot stands between two customers only.
        if word == DEPOT_ID and 0 < k < len(words.words) - 1 and route[-1] != DEPOT_ID:
            route.append(word)
            continue
        request = str(words.integer(k, "customer", minimum=1))
        if request in seen:
            raise row.error("customer", f"expected each number once, got {request} again")
        seen.add(request)
        route.append(request)
    return tuple(route)
