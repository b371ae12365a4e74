"""What is carried through a generated hospital, how often, and how urgently.

Flows of the loading bay have one end there: `deliver` runs from the bay beside the
dock to a ward or theatre, `collect` from there to the bay. Transfers run between
wards or theatres and the laboratory, the pharmacy or the sterile store, and never
see the bay.

All rates, loads, windows and service times are ours, chosen to look like a working
day; none is taken from a publication. Replace them by what is counted on site.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wardwise.fleet.problem import Kind, Request
from wardwise.site import NodeKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from wardwise.fleet.problem import Matrix
    from wardwise.site import Node

HOUR_S = 3600.0
TOLERANCE_S = (0.0, 300.0, 600.0)  # stat, urgent, routine


def _hourly(base: float, peaks: dict[int, float]) -> tuple[float, ...]:
    """24 rates: `base` in daytime (6 to 20), a fifth at night, and named peaks."""
    return tuple(peaks.get(h, base if 6 <= h < 20 else base / 5) for h in range(24))


@dataclass(frozen=True, kw_only=True)
class Flow:
    """One kind of transport and how often it is wanted.

    Parameters
    ----------
    to
        Kind of the places that requests are for; a transfer ends there.
    origin
        Where a transfer starts.
    per_hour
        Poisson rate per place, or per pair of origin and place, for each hour of the
        day; empty for timetables.
    window_s
        Length of the window that opens when a Poisson request is ready.
    rounds
        Timetable: windows (from, to) in hours of the day, one request per place each.
    """

    name: str
    kind: Kind
    to: NodeKind = NodeKind.WARD
    origin: NodeKind | None = None
    priority: int
    loads: tuple[int, ...]
    service_s: float
    per_hour: tuple[float, ...] = ()
    window_s: float = 0.0
    rounds: tuple[tuple[float, float], ...] = ()


FLOWS = (
    Flow(
        name="stat-medicine", kind=Kind.DELIVER, priority=1, loads=(1,), service_s=60.0,
        per_hour=_hourly(0.07, {}), window_s=900.0,
    ),
    Flow(
        name="medicine", kind=Kind.DELIVER, priority=3, loads=(1, 2), service_s=60.0,
        per_hour=_hourly(0.2, {7: 0.5, 10: 0.4}), window_s=2700.0,
    ),
    Flow(
        name="sample", kind=Kind.COLLECT, priority=2, loads=(1,), service_s=60.0,
        per_hour=_hourly(0.3, {7: 1.0, 10: 0.7}), window_s=1800.0,
    ),
    Flow(
        name="sterile", kind=Kind.DELIVER, to=NodeKind.THEATRE, priority=2, loads=(2, 3),
        service_s=120.0, rounds=((6.5, 7.5), (8.5, 9.5), (10.5, 11.5), (12.5, 13.5)),
    ),
    Flow(
        name="meal", kind=Kind.DELIVER, priority=2, loads=(4,), service_s=150.0,
        rounds=((7.0, 7.75), (11.25, 12.0), (17.0, 17.75)),
    ),
    Flow(
        name="clean-linen", kind=Kind.DELIVER, priority=3, loads=(2, 3), service_s=120.0,
        rounds=((8.0, 11.0),),
    ),
    Flow(
        name="used-linen", kind=Kind.COLLECT, priority=3, loads=(2, 3), service_s=90.0,
        rounds=((8.0, 11.0),),
    ),
    Flow(
        name="waste", kind=Kind.COLLECT, priority=3, loads=(1, 2), service_s=90.0,
        per_hour=_hourly(0.25, {}), window_s=5400.0,
    ),
)  # fmt: skip

TRANSFERS = (
    Flow(
        name="stat-blood", kind=Kind.TRANSFER, origin=NodeKind.LABORATORY, to=NodeKind.THEATRE,
        priority=1, loads=(1,), service_s=60.0, per_hour=_hourly(0.3, {}), window_s=900.0,
    ),
    Flow(
        name="stat-sample", kind=Kind.TRANSFER, origin=NodeKind.WARD, to=NodeKind.LABORATORY,
        priority=1, loads=(1,), service_s=60.0, per_hour=_hourly(0.05, {}), window_s=1200.0,
    ),
    Flow(
        name="tissue", kind=Kind.TRANSFER, origin=NodeKind.THEATRE, to=NodeKind.LABORATORY,
        priority=2, loads=(1,), service_s=60.0, per_hour=_hourly(0.4, {}), window_s=1500.0,
    ),
    Flow(
        name="dispensed", kind=Kind.TRANSFER, origin=NodeKind.PHARMACY, to=NodeKind.WARD,
        priority=2, loads=(1, 2), service_s=60.0, per_hour=_hourly(0.1, {}), window_s=2700.0,
    ),
    Flow(
        name="used-set", kind=Kind.TRANSFER, origin=NodeKind.THEATRE, to=NodeKind.STERILE,
        priority=3, loads=(2, 3), service_s=120.0, per_hour=_hourly(0.4, {}), window_s=5400.0,
    ),
)  # fmt: skip


def draw_requests(
    nodes: Sequence[Node],
    travel_s: Matrix,
    flows: Sequence[Flow],
    *,
    start_h: float,
    hours: float,
    is_dynamic: bool,
    rng: np.random.Generator,
) -> tuple[Request, ...]:
    """Requests of all flows in order of their windows, numbered per flow.

    Parameters
    ----------
    nodes
        The dock, then every place a flow may start or end at.
    travel_s
        Mean times between the nodes. A window that closes before a robot can be
        there from the dock closes later instead; one of the loading bay, if it is
        known beforehand, is moved back as a whole.
    is_dynamic
        Whether Poisson requests become known only when they are ready.
    """
    row = {node.id: index for index, node in enumerate(nodes)}
    drafts = []
    for flow in flows:
        for origin, place in _ends(flow, nodes):
            first = row[origin or place]
            # Of a transfer, from the start of its pickup to that of its drop.
            lead_s = flow.service_s + float(travel_s[first, row[place]]) if origin else 0.0
            for ready_s, due_s in _windows(flow, start_h, hours, rng):
                release_s = ready_s if is_dynamic and flow.per_hour else 0.0
                there_s = max(release_s + float(travel_s[0, first]), ready_s) + lead_s
                shift_s = max(0.0, math.ceil(there_s) - due_s)
                is_moved = not (origin or release_s)
                draft = Request(
                    id=flow.name,
                    place=place,
                    origin=origin,
                    kind=flow.kind,
                    ready_s=ready_s + (shift_s if is_moved else 0.0),
                    due_s=due_s + shift_s,
                    service_s=flow.service_s,
                    release_s=release_s,
                    priority=flow.priority,
                    tolerance_s=TOLERANCE_S[flow.priority - 1],
                )
                if draft.due_s <= hours * HOUR_S:
                    drafts.append(draft)
    drafts.sort(key=lambda draft: (draft.ready_s, draft.due_s, draft.id, draft.place))
    return _numbered(drafts, {flow.name: flow.loads for flow in flows}, rng)


def _ends(flow: Flow, nodes: Sequence[Node]) -> list[tuple[str | None, str]]:
    """Every pair of origin and place; without transfer the origin is none."""
    origins: list[str | None] = [n.id for n in nodes if n.kind == flow.origin]
    if flow.origin is None:
        origins = [None]
    return [(origin, n.id) for n in nodes if n.kind == flow.to for origin in origins]


def _numbered(
    drafts: list[Request], loads: dict[str, tuple[int, ...]], rng: np.random.Generator
) -> tuple[Request, ...]:
    """Give requests, named after their flows, a number and a load."""
    count = dict.fromkeys(loads, 0)
    requests = []
    for draft in drafts:
        count[draft.id] += 1
        load = float(rng.choice(loads[draft.id]))
        requests.append(replace(draft, id=f"{draft.id}-{count[draft.id]:03d}", load=load))
    return tuple(requests)


def _windows(
    flow: Flow, start_h: float, hours: float, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Windows of one flow at one place, in whole seconds from the start."""
    windows = [
        ((begin_h - start_h) * HOUR_S, (end_h - start_h) * HOUR_S)
        for begin_h, end_h in flow.rounds
        if begin_h >= start_h
    ]
    for hour, rate in enumerate(flow.per_hour):
        for moment_h in hour + rng.random(rng.poisson(rate)):
            ready_s = float(round((moment_h - start_h) * HOUR_S))
            if ready_s >= 0:
                windows.append((ready_s, ready_s + flow.window_s))
    return [(ready_s, due_s) for ready_s, due_s in windows if due_s <= hours * HOUR_S]
