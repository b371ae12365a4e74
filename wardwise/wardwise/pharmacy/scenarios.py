"""The sequence and the points of bins as one program over drawn service times (M3, CP-SAT).

Sample average approximation: S scenarios of service times, one sequence and one choice of points
for all of them. Each point holds a token at the start; a bin that comes to a point takes the
token or the place of a bin that stands there and is stored in the same cycle. Times are event
times, as in `wardwise.pharmacy.timing`: a cycle begins when the arm is there and the bin that it
stores is sorted. For any number of points and pharmacists; small days only (extra ``exact``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wardwise.pharmacy.points import replay
from wardwise.pharmacy.programs import require_solver

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from wardwise.pharmacy.chain import Ints, Packed
    from wardwise.pharmacy.costs import Costs
    from wardwise.pharmacy.rack import Floats

MILLISECONDS = 1000
NONE = -1  # what is stored where a point is empty


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """What the program found.

    Parameters
    ----------
    sequence, points
        Candidates in sequence and the point of each, shape (lines,).
    makespan_s
        Seconds until the last line is sorted in each scenario, shape (S,).
    value_s
        Mean or CVaR of them, to the millisecond.
    is_optimal
        Whether it is proven that there is no better one.
    """

    sequence: Ints
    points: Ints
    makespan_s: Floats
    value_s: float
    is_optimal: bool


def solve_scenarios(
    costs: Costs,
    packed: Packed,
    service_s: ArrayLike,
    *,
    cvar: float | None = None,
    free_points: bool = True,
    time_limit: float = 60.0,
) -> Choice:
    """Choose sequence and points for the mean, or the worst cases, of the makespan.

    Parameters
    ----------
    costs
        Machine and nodes; its pair costs are not used.
    packed
        Orders in the sequence of service.
    service_s
        Service time at each position, shape (S, lines).
    cvar
        From 0 to below 1: minimise the mean of the worst share 1 - cvar of the scenarios
        (conditional value at risk); None: the mean of all.
    free_points
        Any empty point, or one whose bin is sorted, may be next; otherwise they take turns.
    time_limit
        Seconds, above 0; on one thread.

    Raises
    ------
    ValueError
        On a missing extra, shapes that do not fit, parameters out of range, or nothing in time.
    """
    require_solver("cp-sat", time_limit)
    service = np.asarray(service_s, dtype=np.float64)
    if service.ndim != 2 or service.shape[1] != packed.num_lines or not service.size:
        raise ValueError(
            f"service_s: expected shape (scenarios, {packed.num_lines}), got {service.shape}"
        )
    if cvar is not None and not 0 <= cvar < 1:
        raise ValueError(f"cvar: expected 0 to below 1, got {cvar}")
    from ortools.sat.python import cp_model

    program = _Program(costs, packed, service, free_points=free_points)
    share = len(service) * (1 - (cvar or 0.0))
    program.minimise(share)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = time_limit
    solver.parameters.num_workers = 1
    status = solver.solve(program.model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        raise ValueError(f"time_limit: CP-SAT found no sequence in {time_limit} s")
    sequence, points = np.empty((2, packed.num_lines), dtype=np.int64)
    for (_, j, point, p), literal in program.z.items():
        if solver.boolean_value(literal):
            sequence[p], points[p] = j, point
    cells = costs.cells[packed.node[sequence]]
    makespan_s = replay(costs.machine, cells, points, service)
    worst = np.sort(makespan_s)[::-1]
    weight = np.clip(share - np.arange(len(worst)), 0, 1)
    return Choice(
        sequence=sequence, points=points, makespan_s=makespan_s,
        value_s=float((worst * weight).sum() / share), is_optimal=status == cp_model.OPTIMAL,
    )  # fmt: skip


class _Program:
    """The CP-SAT model."""

    def __init__(self, costs: Costs, packed: Packed, service: Floats, *, free_points: bool) -> None:
        from ortools.sat.python import cp_model

        self.model: Any = cp_model.CpModel()
        self.costs, self.packed = costs, packed
        self.service = np.rint(service * MILLISECONDS).astype(np.int64)
        machine = costs.machine
        longest = machine.cycle_s(0, costs.cells, costs.cells).max() + machine.reach_s.max() * 4
        self.horizon = (
            int(packed.num_lines * longest * MILLISECONDS + self.service.sum(axis=1).max())
            + packed.num_lines
        )
        self._places()
        self._tokens(free_points=free_points)
        self._times()

    def _places(self) -> None:
        """Literal of each candidate at each position of its order."""
        model, packed = self.model, self.packed
        self.y: dict[tuple[int, int], Any] = {}
        self.fits: list[range] = []
        for k, size in enumerate(packed.size.tolist()):
            own = range(int(packed.start[k]), int(packed.start[k + 1]))
            places = range(len(self.fits), len(self.fits) + size)
            for p in places:
                self.fits.append(own)
                for i in own:
                    self.y[i, p] = model.new_bool_var("")
                model.add_exactly_one([self.y[i, p] for i in own])
            for line in range(size):
                mine = [i for i in own if packed.line[i] == line]
                model.add_exactly_one([self.y[i, p] for i in mine for p in places])

    def _tokens(self, *, free_points: bool) -> None:
        """What each bin displaces, and where: z[stored, fetched, point, position]."""
        model, m = self.model, self.costs.num_points
        self.z: dict[tuple[int, int, int, int], Any] = {}
        for p, fits in enumerate(self.fits):
            before = sorted({i for own in self.fits[:p] for i in own})
            points = range(m) if free_points else [p % m]
            for j in fits:
                for point in points:
                    for i in (NONE, *before):
                        if i != j:
                            self.z[i, j, point, p] = model.new_bool_var("")
                mine = [z for (_, b, _, at), z in self.z.items() if b == j and at == p]
                model.add(sum(mine) == self.y[j, p])
            for i in before:  # only what came before can be stored
                stored = [z for (a, _, _, at), z in self.z.items() if a == i and at == p]
                came = [y for (a, at), y in self.y.items() if a == i and at < p]
                model.add(sum(stored) <= sum(came))
        for point in range(m):
            for i in (NONE, *range(len(self.packed.node))):
                gone = [z for (a, _, at, _), z in self.z.items() if a == i and at == point]
                came = [z for (_, b, at, _), z in self.z.items() if b == i and at == point]
                model.add(sum(gone) <= (1 if i == NONE else sum(came)))

    def _times(self) -> None:
        """Event times of every scenario in milliseconds."""
        model, machine = self.model, self.costs.machine
        cells = self.costs.cells[self.packed.node]
        n, scenarios = len(self.fits), range(len(self.service))
        delivered = [[self._time() for _ in scenarios] for _ in range(n)]
        done = [[self._time() for _ in scenarios] for _ in range(n)]
        bin_done = {(i, s): self._time() for i in range(len(cells)) for s in scenarios}
        self.ends = [self._time() for _ in scenarios]
        at = {
            (p, point): sum(z for (_, _, a, k), z in self.z.items() if a == point and k == p)
            for p in range(n) for point in range(machine.num_points)
        }  # fmt: skip
        here = {key: model.new_bool_var("") for key in at}
        for key, literal in here.items():
            model.add(literal == at[key])
        for s in scenarios:
            for p in range(n):
                took = int(self.service[s, p])
                model.add(done[p][s] >= delivered[p][s] + took)
                if p >= machine.num_pharmacists:
                    model.add(done[p][s] >= done[p - machine.num_pharmacists][s] + took)
                model.add(self.ends[s] >= done[p][s])
            for (i, p), literal in self.y.items():
                model.add(bin_done[i, s] >= done[p][s]).only_enforce_if(literal)
        for (i, j, point, p), z in self.z.items():
            for a in range(machine.num_points):
                if p == 0 and a > 0:
                    continue
                if i == NONE:
                    arm_s = machine.reach_s[a, cells[j]] + machine.reach_s[point, cells[j]]
                    arm_s += 2 * machine.arm.handling_s
                else:
                    cycle_s = float(machine.cycle_s(point, cells[i], cells[j]))
                    arm_s = machine.shift_s[a, point] + cycle_s
                given = [z] if p == 0 else [z, here[p - 1, a]]
                for s in scenarios:
                    left = delivered[p - 1][s] if p else 0
                    model.add(delivered[p][s] >= left + _ms(arm_s)).only_enforce_if(given)
            if i != NONE:
                for s in scenarios:
                    earliest = bin_done[i, s] + _ms(cycle_s)
                    model.add(delivered[p][s] >= earliest).only_enforce_if(z)

    def _time(self) -> Any:
        return self.model.new_int_var(0, self.horizon, "")

    def minimise(self, share: float) -> None:
        """Mean of the worst `share` scenarios: threshold and what goes beyond it."""
        model = self.model
        if share == len(self.ends):
            model.minimize(sum(self.ends))
            return
        threshold = self._time()
        beyond = [self._time() for _ in self.ends]
        for end, over in zip(self.ends, beyond, strict=True):
            model.add(over >= end - threshold)
        model.minimize(round(share * 1000) * threshold + 1000 * sum(beyond))


def _ms(seconds: float) -> int:
    return round(seconds * MILLISECONDS)
