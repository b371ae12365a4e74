"""What was late on driven days, in the sense of a promise: by request or trip, and returns.

A request is late if its service (of a transfer, at the drop) starts past its last moment,
or if it was accepted and never served. A promise for trips counts a trip as late if one of
its requests is; it is held to the strictest priority aboard. A robot is late if it comes
home after its shift, or not at all; one that people have repaired is at the depot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from wardwise.fleet.facts import Deed
from wardwise.fleet.problem import NUM_PRIORITIES
from wardwise.fleet.randomness import Promise, Scope

if TYPE_CHECKING:
    from collections.abc import Container

    from wardwise.fleet.facts import DrivenDay, Fact
    from wardwise.fleet.problem import Instance

# Late by less is rounding; the tolerance of the referee.
TOLERANCE_S = 1e-6
# Group of the returns, behind those of the priorities.
RETURNS = NUM_PRIORITIES
# The dispatcher's name for goods that go on after a breakdown. Those that go back after a
# cancellation have one, too, but their request is none any more, and their service no time.
RESCUE = "/rescue"


class Unit(NamedTuple):
    """What is late or not: its group (priority from 0, or `RETURNS`) and its name."""

    group: int
    name: str


def base_name(request: str, known: Container[str]) -> str:
    """Name under which a request came in."""
    while request not in known and request.endswith(RESCUE):
        request = request.removesuffix(RESCUE)
    return request


class Outcome:
    """One day; `see` takes its facts, `late` tells."""

    def __init__(self, instance: Instance, day: DrivenDay) -> None:
        self.number = day.day
        self._instance, self._unserved = instance, day.unserved
        self._late: dict[str, bool] = {}
        self._trips: dict[tuple[str, int], list[str]] = {}
        self._num_trips: dict[str, int] = {}
        self._is_out: dict[str, bool] = {}
        self._late_returns: set[str] = set()

    def see(self, fact: Fact) -> None:
        """Take the next thing that a robot did."""
        robot = self._instance.robot_by_id.get(fact.robot)
        if fact.deed is Deed.DEPART:
            self._is_out[fact.robot] = True
        elif fact.deed in (Deed.RETURN, Deed.REPAIRED):
            self._is_out[fact.robot] = False
            if robot is not None and fact.now_s > robot.end_s + TOLERANCE_S:
                self._late_returns.add(fact.robot)
        elif fact.deed is Deed.START and fact.request is not None:
            self._start(fact, fact.request)
        if fact.deed in (Deed.RETURN, Deed.BREAK_DOWN):
            self._num_trips[fact.robot] = self._num_trips.get(fact.robot, 0) + 1

    def late(self, scope: Scope) -> dict[Unit, bool]:
        """Whether each unit is late, of those that the instance has."""
        found = self._trip_units() if scope is Scope.TRIP else self._request_units(self._late)
        never = {base_name(each, self._instance.request_by_id): True for each in self._unserved}
        found |= self._request_units(never)
        for robot, is_out in self._is_out.items():
            if robot in self._instance.robot_by_id:
                found[Unit(RETURNS, robot)] = is_out or robot in self._late_returns
        return found

    def _start(self, fact: Fact, name: str) -> None:
        known = self._instance.request_by_id
        request = known.get(base_name(name, known))
        if request is None or fact.place != request.place or request.id in self._late:
            return
        self._late[request.id] = fact.now_s > request.latest_s + TOLERANCE_S
        trip = fact.robot, self._num_trips.get(fact.robot, 0) + 1
        self._trips.setdefault(trip, []).append(request.id)

    def _request_units(self, late: dict[str, bool]) -> dict[Unit, bool]:
        known = self._instance.request_by_id
        return {
            Unit(known[id_].priority - 1, id_): value for id_, value in late.items() if id_ in known
        }

    def _trip_units(self) -> dict[Unit, bool]:
        known = self._instance.request_by_id
        return {
            Unit(min(known[id_].priority for id_ in ids) - 1, f"{robot}, trip {trip}"): any(
                self._late[id_] for id_ in ids
            )
            for (robot, trip), ids in self._trips.items()
        }


class Outcomes:
    """Counts of many days.

    Attributes
    ----------
    scope
        Whether requests or trips are counted: as the instance's promise has it.
    days
        Numbers of the days.
    by_day
        Of each group, late and all units of each day.
    by_name
        Of each unit, days on which it was late, and all.
    """

    def __init__(self, instance: Instance) -> None:
        self.scope = (instance.promise or Promise()).scope
        self.days: list[int] = []
        self.by_day: list[list[tuple[int, int]]] = [[] for _ in range(NUM_PRIORITIES + 1)]
        self.by_name: dict[Unit, tuple[int, int]] = {}

    def add(self, outcome: Outcome) -> None:
        """Count one more day."""
        late = outcome.late(self.scope)
        self.days.append(outcome.number)
        for group, counts in enumerate(self.by_day):
            those = [is_late for unit, is_late in late.items() if unit.group == group]
            counts.append((sum(those), len(those)))
        for unit, is_late in late.items():
            num_late, count = self.by_name.get(unit, (0, 0))
            self.by_name[unit] = num_late + is_late, count + 1
