"""Measurements of the study: every plan, the goals by instance, and the goals over all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .plans import LATE_SHARE, OURS
from .sheet import SHEET

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .judge import Judged

Row = dict[str, Any]
Goal = tuple[str, float]

PYVRP = "pyvrp"
NAMES = {PYVRP: "PyVRP 0.14.1", "alns": "ALNS 7.0", "tabu": "tabu search", "insertion": "insertion"}
CHAIN_ERROR = 0.15  # what the reference study found of the normal chain


def rows(verdicts: Sequence[Judged]) -> Iterator[Row]:
    """All measurements of the first seed; more seeds stand in the table of all plans."""
    first = [one for one in verdicts if one.seed == verdicts[0].seed]
    names = list(dict.fromkeys(one.instance for one in first))
    for one in first:
        yield plan_row(one)
    ours = {one.instance: one for one in first if one.method == OURS}
    by_method = {
        method: {
            name: [one for one in first if (one.instance, one.method) == (name, method)]
            for name in names
        }
        for method in dict.fromkeys(one.method for one in first if one.method != OURS)
    }
    for name, mine in ours.items():
        yield row(f"robust_{name}_max_late", mine.max_late, "", ("<=", LATE_SHARE))
        yield from price_rows(mine, by_method.get(PYVRP, {}).get(name, []))
    if ours:
        for method, plans in by_method.items():
            yield from comparison(ours, plans, method)
    yield from reference_rows(first)


def row(
    name: str, value: float, unit: str, goal: Goal | None = None,
    detail: Mapping[str, object] | None = None, peer: str | None = None,
) -> Row:  # fmt: skip
    """One measurement."""
    return {
        "name": name, "value": value, "unit": unit, "goal": goal, "detail": detail or {},
        "peer": peer,
    }  # fmt: skip


def plan_row(one: Judged) -> Row:
    """Robots of one plan, with all that the table of plans shows."""
    inflation = "promise 5 %" if one.inflation is None else f"z = {one.inflation:g}"
    columns = {
        "instance": one.instance,
        "method": NAMES.get(one.method, one.method),
        "margin": inflation,
        "robots": one.robots,
        "distance": round(one.distance, 1),
        "mean P(late)": round(one.mean_late, 4),
        "max P(late)": round(one.max_late, 3),
        "stops above 5 %": one.num_above,
        "with those out of reach": f"{one.worst_late:.3f}, {one.num_all_above}",
        "E[lateness] days / chain": f"{one.lateness:.3g} / {one.chain_lateness:.3g}",
    }
    if not one.robots:
        columns = {**dict.fromkeys(columns, "no plan"), **dict(list(columns.items())[:3])}
    return row(f"robust_plan_{label(one)}", one.robots, "robots", None, {"columns": columns})


def label(one: Judged) -> str:
    """Instance, method and margin as a part of a name."""
    z = "" if one.inflation is None else f"_z{one.inflation:g}"
    return f"{one.instance}_{one.method}{z}"


def least_inflated(plans: Sequence[Judged]) -> Judged | None:
    """The punctual plan with the least margin; none where no margin sufficed."""
    punctual = [one for one in plans if one.is_punctual]
    return min(punctual, key=lambda one: one.inflation or 0.0, default=None)


def price_rows(mine: Judged, plans: Sequence[Judged]) -> Iterator[Row]:
    """Our robots over PyVRP's: at equal risk, at z = 1, and at z = 0, the price of the promise."""
    rival = least_inflated(plans)
    if rival is not None and mine.is_punctual:
        detail = {"peer_z": rival.inflation, "ours": size(mine), "peer": size(rival)}
        more = mine.robots - rival.robots
        name = f"robust_{mine.instance}_robots_over_punctual"
        yield row(name, more, "robots", ("<=", 0), detail, NAMES[PYVRP])
    for one in plans:
        if one.inflation not in (0.0, 1.0) or not (one.robots and mine.robots):
            continue
        goal = ("<=", 0.0) if one.inflation else None
        name = f"robust_{mine.instance}_robots_over_z{one.inflation:g}"
        detail = {"distance_x": round(mine.distance / one.distance, 4)}
        yield row(name, mine.robots - one.robots, "robots", goal, detail, NAMES[PYVRP])


def size(one: Judged) -> tuple[int, float]:
    """Robots first, then distance."""
    return one.robots, one.distance


def comparison(
    ours: Mapping[str, Judged], plans: Mapping[str, Sequence[Judged]], method: str
) -> Iterator[Row]:
    """On how many instances ours has no more, or fewer, robots at a risk of at most 5 %.

    A rival without a punctual plan loses; ours without one loses to all.
    """
    no_more, fewer, better = [], [], []
    for name, mine in ours.items():
        rival = least_inflated(plans[name])
        if not mine.is_punctual:
            continue
        if rival is None or mine.robots <= rival.robots:
            no_more.append(name)
        if rival is None or mine.robots < rival.robots:
            fewer.append(name)
        if rival is None or size(mine) <= size(rival):
            better.append(name)
    total = len(ours)
    peer = NAMES[method]
    for what, found, least in (
        ("no_more_robots", no_more, total),
        ("fewer_robots", fewer, total // 2 + 1),
        ("no_worse", better, total),
    ):
        detail = {"instances": found, "of": total}
        name = f"robust_{what}_than_{method}"
        yield row(name, len(found), "instances", (">=", least), detail, peer)


def reference_rows(verdicts: Sequence[Judged]) -> Iterator[Row]:
    """How far PyVRP's plans are from those of the reference study, and the chain from the days."""
    robots, mean_late = {}, {}
    for one in verdicts:
        sheet = SHEET.get((one.instance, one.inflation if one.inflation is not None else -1.0))
        if one.method == PYVRP and sheet and one.robots:
            robots[label(one)] = one.robots - sheet.robots
            mean_late[label(one)] = round(one.mean_late - sheet.mean_late, 4)
    if robots:
        worst = max(robots.values())
        yield row("robust_reference_robots_more", worst, "robots", ("<=", 0), {"each": robots})
        off = max(map(abs, mean_late.values()))
        detail = {"each": mean_late}
        yield row("robust_reference_mean_late_off", off, "", ("<=", 0.05), detail)
    errors = {label(one): round(one.chain_error, 4) for one in verdicts if one.robots}
    if errors:
        largest = max(errors.values())
        detail = {"each": errors}
        yield row("robust_chain_error", largest, "", ("<=", CHAIN_ERROR), detail)
