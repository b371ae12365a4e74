"""Measurements of the static comparison, made from its single results.

A solver's seeds are averaged for each instance first. Differences to a peer are
taken over the instances that both have solved.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

from .found import DISTANCE, HIERARCHICAL
from .results import GEHRING_HOMBERGER, SOLOMON, gap_pct
from .study import PACKAGES, PEERS, version_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .results import Best, Result

SYSTEM = "dispatch"
# By budget in seconds: mean gap in percent; vehicles above the best known in sum; mean distance
# gap in percent where the vehicles are equal.
DISTANCE_GOALS = {1: ("<=", 0.6), 10: ("<=", 0.25), 60: ("<=", 0.1)}
VEHICLE_GOALS = {10: ("<=", 1), 60: ("<=", 0)}
EQUAL_GOALS = {10: ("<", 1.0), 60: ("<", 0.7)}

Row = dict[str, Any]


class Score(NamedTuple):
    """Means over the seeds that ended with a feasible plan."""

    vehicles: float
    distance: float
    gap_pct: float | None  # None: no seed with the vehicles of the best known


class Table:
    """Scores by solver and instance at one objective and budget."""

    def __init__(
        self, results: Sequence[Result], best: Mapping[tuple[str, str], Best], objective: str
    ) -> None:
        by_solver: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
        self.missing: dict[str, list[str]] = defaultdict(list)
        for result in results:
            if result.is_feasible:
                by_solver[result.key.solver][result.key.instance].append(result)
            else:
                self.missing[result.key.solver].append(result.key.instance)
        self.best = {name: one for (name, kind), one in best.items() if kind == objective}
        self.scores = {
            solver: {name: score(found, best) for name, found in sorted(instances.items())}
            for solver, instances in by_solver.items()
        }

    def excess(self, solver: str) -> float:
        """Vehicles above the best known, summed over the solved instances."""
        scores = self.scores[solver].items()
        return sum(one.vehicles - self.best[name].vehicles for name, one in scores)

    def mean_gap(self, solver: str) -> float | None:
        """Mean of the gaps that there are."""
        gaps = [one.gap_pct for one in self.scores[solver].values() if one.gap_pct is not None]
        return mean(gaps) if gaps else None

    def pairs(self, solver: str, peer: str) -> list[tuple[Score, Score]]:
        """Scores of two solvers on the instances that both have solved."""
        mine, theirs = self.scores[solver], self.scores.get(peer, {})
        return [(mine[name], theirs[name]) for name in mine.keys() & theirs.keys()]


def score(results: Sequence[Result], best: Mapping[tuple[str, str], Best]) -> Score:
    """Average the seeds of one solver on one instance."""
    gaps = [gap for result in results if (gap := gap_pct(result, best)) is not None]
    return Score(
        vehicles=mean(result.vehicles or 0 for result in results),
        distance=mean(result.distance or 0.0 for result in results),
        gap_pct=mean(gaps) if gaps else None,
    )


def rows(
    results: Sequence[Result], best: Mapping[tuple[str, str], Best], engine: str
) -> Iterator[Row]:
    """All measurements; the goals are those of our default method `engine`."""
    solomon = [result for result in results if result.key.set == SOLOMON]
    objectives = {DISTANCE: _distance_rows, HIERARCHICAL: _hierarchical_rows}
    for objective, make in objectives.items():
        of_objective = [result for result in solomon if result.key.objective == objective]
        for budget in sorted({result.key.budget_s for result in of_objective}):
            in_time = [result for result in of_objective if result.key.budget_s == budget]
            table = Table(in_time, best, objective)
            yield from make(table, budget, engine)
    yield from _ratio_rows([r for r in results if r.key.set == GEHRING_HOMBERGER], engine)
    num_missing = sum(not r.is_feasible for r in results if r.key.solver == engine)
    if any(result.key.solver == engine for result in results):
        yield row("static_missing_plans", num_missing, "plans", goal=("==", 0))


def row(
    name: str,
    value: float,
    unit: str,
    *,
    goal: tuple[str, float] | None = None,
    peer: str | None = None,
    detail: Row | None = None,
) -> Row:
    """One measurement as it is printed."""
    return {
        "system": SYSTEM, "name": name, "value": value, "unit": unit, "goal": goal,
        "peer": peer, "detail": detail or {},
    }  # fmt: skip


def _distance_rows(table: Table, budget: float, engine: str) -> Iterator[Row]:
    """Mean gap of every solver, and ours less that of the best peer."""
    name = f"static_{DISTANCE}_{budget:g}s"
    for solver in table.scores:
        gap = table.mean_gap(solver)
        if gap is not None:
            goal = DISTANCE_GOALS.get(budget) if solver == engine else None
            detail = _detail(table, solver)
            yield row(f"{name}_{solver}_gap", gap, "%", goal=goal, detail=detail)
    differences = {}
    for peer in _peers_in(table, engine):
        pairs = table.pairs(engine, peer)
        differences[peer] = mean(
            mine.gap_pct - theirs.gap_pct
            for mine, theirs in pairs
            if mine.gap_pct is not None and theirs.gap_pct is not None
        )
    yield from _worst_difference(f"{name}_{engine}_gap_minus_best_peer", "points", differences, "<")


def _hierarchical_rows(table: Table, budget: float, engine: str) -> Iterator[Row]:
    """Vehicles above the best known and the gap where they are equal, for every solver.

    Against a peer, vehicles are compared in sum, and distances where the vehicles are equal.
    """
    name = f"static_{HIERARCHICAL}_{budget:g}s"
    for solver in table.scores:
        is_engine = solver == engine
        detail = _detail(table, solver)
        goal = VEHICLE_GOALS.get(budget) if is_engine else None
        excess = table.excess(solver)
        yield row(f"{name}_{solver}_vehicles", excess, "vehicles", goal=goal, detail=detail)
        gap = table.mean_gap(solver)
        if gap is not None:
            goal = EQUAL_GOALS.get(budget) if is_engine else None
            yield row(f"{name}_{solver}_gap", gap, "%", goal=goal, detail=detail)
    vehicles, distances = {}, {}
    for peer in _peers_in(table, engine):
        pairs = table.pairs(engine, peer)
        vehicles[peer] = sum(mine.vehicles - theirs.vehicles for mine, theirs in pairs)
        equal = [
            100 * (mine.distance / theirs.distance - 1)
            for mine, theirs in pairs
            if mine.vehicles == theirs.vehicles
        ]
        if equal:
            distances[peer] = mean(equal)
    base = f"{name}_{engine}"
    yield from _worst_difference(f"{base}_vehicles_minus_best_peer", "vehicles", vehicles, "<=")
    yield from _worst_difference(f"{base}_distance_minus_best_peer", "%", distances, "<")


def _ratio_rows(results: Sequence[Result], engine: str) -> Iterator[Row]:
    """Our distance over PyVRP's on each of the large files, and the mean."""
    budgets = sorted({result.key.budget_s for result in results})
    for budget in budgets:
        table = Table([r for r in results if r.key.budget_s == budget], {}, DISTANCE)
        ratios = {
            name: mine.distance / table.scores["pyvrp"][name].distance
            for name, mine in table.scores.get(engine, {}).items()
            if name in table.scores.get("pyvrp", {})
        }
        base = f"static_gh_{budget:g}s"
        peer = f"PyVRP {version_of('pyvrp')}"
        for name, ratio in ratios.items():
            detail = {solver: _rounded(table.scores[solver][name]) for solver in (engine, "pyvrp")}
            yield row(f"{base}_{name}_{engine}_ratio", ratio, "x", peer=peer, detail=detail)
        if ratios:
            goal = ("<=", 1.0)
            detail = {"missing": table.missing}
            value = mean(ratios.values())
            yield row(f"{base}_{engine}_ratio", value, "x", goal=goal, peer=peer, detail=detail)


def _peers_in(table: Table, engine: str) -> list[str]:
    """Peers with an instance that our method has solved, too."""
    if engine not in table.scores:
        return []
    return [peer for peer in PEERS if table.pairs(engine, peer)]


def _worst_difference(
    name: str, unit: str, differences: dict[str, float], compare: str
) -> Iterator[Row]:
    """Ours less the peer that comes off best against us; 0 or less means as good as each."""
    if not differences:
        return
    peer = max(differences, key=lambda peer: differences[peer])
    goal = (compare, 0.0)
    named = f"{PACKAGES[peer]} {version_of(peer)}"
    detail = {"minus": {key: round(value, 4) for key, value in differences.items()}}
    yield row(name, differences[peer], unit, goal=goal, peer=named, detail=detail)


def _detail(table: Table, solver: str) -> Row:
    """Vehicles, distance and gap of each instance, and what is missing."""
    instances = {name: _rounded(one) for name, one in table.scores[solver].items()}
    detail: Row = {"vehicles_distance_gap": instances, "version": version_of(solver)}
    if table.missing[solver]:
        detail["missing"] = table.missing[solver]
    return detail


def _rounded(one: Score) -> list[float | None]:
    gap = None if one.gap_pct is None else round(one.gap_pct, 3)
    return [round(one.vehicles, 2), round(one.distance, 2), gap]
