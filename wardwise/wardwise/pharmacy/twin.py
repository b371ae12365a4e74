"""Discrete-event twin of the machine: the arm, the points and the pharmacists in SimPy.

`replay` lives through a given sequence and must tell the same times as
`wardwise.pharmacy.timing.simulate`, replication by replication. `live_day` lets the scheduler of
`wardwise.pharmacy.online` drive the same machine through a day with orders that come in,
breakdowns, and bins that hold less than the books say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from wardwise.pharmacy.timing import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from numpy.typing import ArrayLike

    from wardwise.pharmacy.rack import Floats, Machine

    Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, kw_only=True)
class Disturbances:
    """What goes wrong.

    Parameters
    ----------
    mtbf_s
        Mean seconds of the arm's work between failures (exponential), above 0; infinite: none.
    mttr_s
        Mean seconds of a repair (exponential), above 0. The arm then goes on with what it did.
    missing
        Share of bins that turn out to hold none of the packs that were booked, 0 to 1.
    """

    mtbf_s: float = math.inf
    mttr_s: float = 600.0
    missing: float = 0.0

    def __post_init__(self) -> None:
        if not self.mtbf_s > 0:
            raise ValueError(f"disturbances: mtbf_s: expected a number above 0, got {self.mtbf_s}")
        if not 0 < self.mttr_s < math.inf:
            raise ValueError(
                f"disturbances: mttr_s: expected a finite number above 0, got {self.mttr_s}"
            )
        if not 0 <= self.missing <= 1:
            raise ValueError(f"disturbances: missing: expected 0 to 1, got {self.missing}")

    @property
    def availability(self) -> float:
        """Share of the time that the arm can work when it always has to."""
        return 1 / (1 + self.mttr_s / self.mtbf_s)


class ArmTwin:
    """The arm: moves that take their time, with breakdowns in between.

    Parameters
    ----------
    env
        SimPy environment.
    machine
        The machine.
    disturbances, rng
        When it fails and how long repairs take.
    on_failure
        Told when the arm stands still (with the expected end) and when it goes on (None).
    """

    def __init__(
        self,
        env: simpy.Environment,
        machine: Machine,
        disturbances: Disturbances,
        rng: np.random.Generator,
        on_failure: Callable[[float | None], None] = lambda _until_s: None,
    ) -> None:
        self.env, self.machine = env, machine
        self._disturbances, self._rng, self._on_failure = disturbances, rng, on_failure
        self._until_failure_s = self._next_failure_s()
        self.point = 0
        self.busy_s = self.down_s = 0.0

    def shift(self, point: int) -> Process:
        """Move to a point."""
        move_s = float(self.machine.shift_s[self.point, point])
        self.point = point
        if move_s:
            yield from self._work(move_s)

    def fetch(self, point: int, cell: int, stored: int | None) -> Process:
        """Store what stands at a point, where the arm is then, and bring a bin there.

        With nothing to store, the arm sets out from where it is.
        """
        machine = self.machine
        if stored is None:
            out_s = machine.reach_s[self.point, cell]
        else:
            out_s = machine.reach_s[point, stored] + machine.between_s[stored, cell]
            out_s += 2 * machine.arm.handling_s
        self.point = point
        yield from self._work(float(out_s + machine.reach_s[point, cell]) + self._handling_s)

    def refill(self, cell: int) -> Process:
        """Take new packs at the first point, store them, and come back to where the arm was."""
        machine, point = self.machine, self.point
        way_s = machine.shift_s[point, 0] + machine.reach_s[0, cell] + machine.reach_s[point, cell]
        yield from self._work(float(way_s) + self._handling_s)

    @property
    def _handling_s(self) -> float:
        return 2 * self.machine.arm.handling_s

    def _work(self, seconds: float) -> Process:
        """Work, with repairs when failures fall into it."""
        self.busy_s += seconds
        while seconds >= self._until_failure_s:
            yield self.env.timeout(self._until_failure_s)
            seconds -= self._until_failure_s
            repair_s = float(self._rng.exponential(self._disturbances.mttr_s))
            self._on_failure(self.env.now + self._disturbances.mttr_s)
            yield self.env.timeout(repair_s)
            self.down_s += repair_s
            self._on_failure(None)
            self._until_failure_s = self._next_failure_s()
        self._until_failure_s -= seconds
        yield self.env.timeout(seconds)

    def _next_failure_s(self) -> float:
        mtbf_s = self._disturbances.mtbf_s
        return float(self._rng.exponential(mtbf_s)) if mtbf_s < math.inf else math.inf


def replay(
    machine: Machine,
    cells: ArrayLike,
    service_s: ArrayLike,
    *,
    release_s: ArrayLike | None = None,
    disturbances: Disturbances | None = None,
    seed: int = 0,
) -> Timeline:
    """Live through a sequence event by event.

    Parameters
    ----------
    machine, cells, service_s
        As for `wardwise.pharmacy.timing.simulate`.
    release_s
        When each line's order comes, not falling, shape (n,); None: all at the start.
    disturbances
        Breakdowns; missing packs mean nothing here.
    seed
        Of the breakdowns.
    """
    sequence = np.asarray(cells, dtype=np.int64)
    service = np.asarray(service_s, dtype=np.float64)
    if service.ndim != 2 or service.shape[1:] != sequence.shape:
        raise ValueError(
            f"service_s: expected shape (replications, {len(sequence)}), got {service.shape}"
        )
    release = np.zeros(len(sequence)) if release_s is None else np.asarray(release_s, dtype=float)
    delivered_s, sorted_s = np.empty_like(service), np.empty_like(service)
    for number, times_s in enumerate(service):
        rng = np.random.default_rng([seed, number])
        env = simpy.Environment()
        arm = ArmTwin(env, machine, disturbances or Disturbances(), rng)
        out = (delivered_s[number], sorted_s[number])
        env.process(_serve(arm, sequence.tolist(), times_s.tolist(), release.tolist(), out))
        env.run()
    return Timeline(delivered_s=delivered_s, sorted_s=sorted_s)


def _serve(
    arm: ArmTwin,
    cells: list[int],
    times_s: list[float],
    release_s: list[float],
    out: tuple[Floats, Floats],
) -> Process:
    """The arm fetches bin after bin; the pharmacists take them in turn."""
    env, machine = arm.env, arm.machine
    m, q = machine.num_points, machine.num_pharmacists
    people = [simpy.Resource(env) for _ in range(q)]
    done: list[simpy.Process] = []

    def sort(k: int) -> Process:
        with people[k % q].request() as turn:
            yield turn
            yield env.timeout(times_s[k])
        out[1][k] = env.now

    for k, cell in enumerate(cells):
        point = k % m
        if k >= m:
            yield from arm.shift(point)
            yield done[k - m]
        if release_s[k] > env.now:
            yield env.timeout(release_s[k] - env.now)
        yield from arm.fetch(point, cell, cells[k - m] if k >= m else None)
        out[0][k] = env.now
        done.append(env.process(sort(k)))
