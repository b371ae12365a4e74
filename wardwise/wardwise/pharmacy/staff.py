"""Pharmacists who get tired and take pauses, in a simulated day.

Sorting takes ``1 + slower_per_h t`` times as long t hours after the last pause. A pause begins when
it is due, or with the end of the pick at hand; first pauses are spread over the people. Whoever has
been free the longest takes the next bin, which shares the work fairly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import simpy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Process = Generator[simpy.Event, Any, None]

HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Staff:
    """How pharmacists work.

    Parameters
    ----------
    persons
        Their names in the log of service times, the first of the machine's pharmacists first;
        those without a name work like the average.
    slower_per_h
        Share by which times grow in an hour without a pause, at least 0.
    pause_every_s
        Work between two pauses, above 0; infinite: none.
    pause_s
        Length of a pause, at least 0.
    """

    persons: tuple[str, ...] = ()
    slower_per_h: float = 0.0
    pause_every_s: float = math.inf
    pause_s: float = 900.0

    def __post_init__(self) -> None:
        if not self.pause_every_s > 0:
            raise ValueError(
                f"staff: pause_every_s: expected a number above 0, got {self.pause_every_s}"
            )
        for name in ("slower_per_h", "pause_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"staff: {name}: expected a finite number of at least 0, got {value}"
                )


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """From when to when somebody does something.

    Parameters
    ----------
    who
        Number of the pharmacist, from 0; None: the arm.
    what
        ``fetch``, ``refill`` or ``repair`` of the arm, ``sort`` or ``pause`` of a pharmacist.
    from_s, to_s
        Seconds from the start of the day.
    order, drug, point
        What for, and where; empty and None where it means nothing.
    """

    who: int | None
    what: str
    from_s: float
    to_s: float
    order: str = ""
    drug: str = ""
    point: int | None = None


@dataclass(eq=False)
class _Person:
    number: int
    name: str
    due_s: float
    rested_s: float = 0.0


class Desk:
    """The pharmacists of a machine.

    Parameters
    ----------
    env
        SimPy environment.
    num_pharmacists, staff
        How many, and how they work.
    is_open
        Whether there is still something to come: nobody takes a pause after that.
    """

    def __init__(
        self,
        env: simpy.Environment,
        num_pharmacists: int,
        staff: Staff,
        is_open: Callable[[], bool],
    ) -> None:
        self.env, self.staff, self._is_open = env, staff, is_open
        self.log: list[Stretch] = []
        self._free = simpy.Store(env)
        for k in range(num_pharmacists):
            name = staff.persons[k] if k < len(staff.persons) else ""
            first_s = staff.pause_every_s * (k + 1) / num_pharmacists
            self._come_back(_Person(k, name, first_s))

    @property
    def sorting_s(self) -> float:
        """Seconds of sorting so far, of all together."""
        return sum(done.to_s - done.from_s for done in self.log if done.what == "sort")

    def sort(
        self, seconds_of: Callable[[str], float], *, order: str, drug: str, point: int
    ) -> Process:
        """Wait for somebody and let them sort; `seconds_of` a name is what a rested one takes."""
        person: _Person = yield self._free.get()
        from_s = self.env.now
        tired = 1 + self.staff.slower_per_h * (from_s - person.rested_s) / HOUR_S
        yield self.env.timeout(seconds_of(person.name) * tired)
        self._note(person, "sort", from_s, order=order, drug=drug, point=point)
        self._come_back(person)

    def _come_back(self, person: _Person) -> None:
        """Free for the next bin, or off for a pause."""
        if self.env.now >= person.due_s:
            self.env.process(self._rest(person))
            return
        self._free.put(person)
        if person.due_s < math.inf:
            self.env.process(self._rest_if_idle(person, person.due_s))

    def _rest_if_idle(self, person: _Person, due_s: float) -> Process:
        yield self.env.timeout(due_s - self.env.now)
        if person.due_s == due_s and person in self._free.items and self._is_open():
            self._free.items.remove(person)
            yield from self._rest(person)

    def _rest(self, person: _Person) -> Process:
        from_s = self.env.now
        yield self.env.timeout(self.staff.pause_s)
        person.rested_s = self.env.now
        person.due_s = self.env.now + self.staff.pause_every_s
        self._note(person, "pause", from_s)
        self._come_back(person)

    def _note(self, person: _Person, what: str, from_s: float, **about: Any) -> None:
        self.log.append(
            Stretch(who=person.number, what=what, from_s=from_s, to_s=self.env.now, **about)
        )
