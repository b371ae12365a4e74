"""A believable hospital and its transport requests, drawn from a seed.

The building has a logistics floor (level 0) with the dock, chargers and stores
along one spine, and ward floors with a ring of two corridors, wings of up to two
wards on both outer sides, and service elevators between the corridors. Robots
come back to the dock through a sluice for dirty goods that opens one way only, so
the way back is shorter than the way out.

Every request has one end at the loading bay beside the dock: `deliver` runs from
the bay to a ward or theatre, `collect` from there to the bay. Staff carry between
the bay and the stores. A direct transport from a store to a ward is not modelled.

All rates, loads, windows and prices below are ours, chosen to look like a working
day; none is taken from a publication. Replace them by what is counted on site.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot, Station
from wardwise.site import Corridor, Elevator, Floor, Node, NodeKind, Site

HOUR_S = 3600.0
OVERTIME_S = 1800.0  # robots may come home this long after the last window has closed
CAPACITY_SLOTS = 6.0
RELOAD_S = 90.0
TOLERANCE_S = (0.0, 300.0, 900.0)  # stat, urgent, routine
# A robot's share of a day, energy and wear per metre, what a late second costs the
# ward, and what a porter costs who has to walk instead.
HOSPITAL_COSTS = Costs(
    per_robot=30.0,
    per_metre=0.002,
    lateness_per_s=(0.1, 0.02, 0.005),
    per_denial=(400.0, 120.0, 40.0),
)

PITCH_M = 24.0  # between two wings
RING_M = 30.0  # between the two corridors of a ward floor
WING_M = (14.0, 30.0)  # from the corridor to the first and second ward of a wing
ROOM_M = 14.0  # from the spine of the logistics floor to its rooms
WARDS_PER_COLUMN = 4
WARDS_PER_ELEVATOR = 12
WARDS_PER_THEATRE = 8

ROOMS = (
    (NodeKind.LINEN, "Linen store"),
    (NodeKind.WASTE, "Waste room"),
    (NodeKind.DOCK, "Dock and loading bay"),
    (NodeKind.CHARGER, "Chargers"),
    (NodeKind.PHARMACY, "Pharmacy"),
    (NodeKind.LABORATORY, "Laboratory"),
    (NodeKind.STERILE, "Sterile store"),
    (NodeKind.KITCHEN, "Kitchen"),
)


def _hourly(base: float, peaks: dict[int, float]) -> tuple[float, ...]:
    """24 rates: `base` in daytime (6 to 20), a fifth at night, and named peaks."""
    return tuple(peaks.get(h, base if 6 <= h < 20 else base / 5) for h in range(24))


@dataclass(frozen=True, kw_only=True)
class Flow:
    """One kind of transport and how often it is wanted.

    Parameters
    ----------
    per_hour
        Poisson rate per place for each hour of the day; empty for timetables.
    window_s
        Length of the window that opens when a Poisson request is ready.
    rounds
        Timetable: windows (from, to) in hours of the day, one request per place each.
    """

    name: str
    kind: Kind
    to: NodeKind = NodeKind.WARD
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
        per_hour=_hourly(0.25, {7: 0.9, 10: 0.6}), window_s=1800.0,
    ),
    Flow(
        name="sterile", kind=Kind.DELIVER, to=NodeKind.THEATRE, priority=2, loads=(2, 3),
        service_s=120.0, rounds=((6.5, 7.5), (8.5, 9.5), (10.5, 11.5), (12.5, 13.5)),
    ),
    Flow(
        name="meal", kind=Kind.DELIVER, priority=3, loads=(2,), service_s=120.0,
        rounds=((7.0, 7.75), (11.25, 12.0), (17.0, 17.75)),
    ),
    Flow(
        name="clean-linen", kind=Kind.DELIVER, priority=3, loads=(2,), service_s=120.0,
        rounds=((8.0, 11.0),),
    ),
    Flow(
        name="used-linen", kind=Kind.COLLECT, priority=3, loads=(1, 2), service_s=90.0,
        rounds=((8.0, 11.0),),
    ),
    Flow(
        name="waste", kind=Kind.COLLECT, priority=3, loads=(1, 2), service_s=90.0,
        per_hour=_hourly(0.2, {}), window_s=5400.0,
    ),
)  # fmt: skip


def generate_hospital(
    *,
    num_floors: int = 5,
    num_wards: int = 24,
    num_robots: int | None = None,
    start_h: float = 6.0,
    hours: float = 6.0,
    seed: int,
) -> Instance:
    """Draw a hospital with its requests; second 0 of the instance is `start_h` o'clock.

    Every request can be served by a robot that starts alone and empty-handed, and is
    known from the start (`release_s` is 0). Requests whose window would close after
    the last hour are left out.

    Parameters
    ----------
    num_floors
        2 to 12, the logistics floor included.
    num_wards
        10 to 80, spread evenly over the floors above.
    num_robots
        1 to 200; `None` takes 5 robots per 12 wards, with which the default morning
        can be served in full and on time.
    start_h, hours
        Start of the horizon in hours of the day (0 to 23) and its length (1 to 24),
        within one day.

    Raises
    ------
    ValueError
        Naming the parameter and its range.
    """
    if num_robots is None:
        num_robots = math.ceil(num_wards * 5 / 12)
    _require_range("num_floors", num_floors, 2, 12)
    _require_range("num_wards", num_wards, 10, 80)
    _require_range("num_robots", num_robots, 1, 200)
    _require_range("start_h", start_h, 0, 23)
    _require_range("hours", hours, 1, 24 - start_h)
    rng = np.random.default_rng(seed)
    site = hospital_site(num_floors=num_floors, num_wards=num_wards, rng=rng)
    stops = [n for n in site.nodes if n.kind in (NodeKind.WARD, NodeKind.THEATRE)]
    served = [_node(site, NodeKind.DOCK), _node(site, NodeKind.CHARGER), *stops]
    travel = site.travel([node.id for node in served])
    out_s = {node.id: float(travel.travel_s[0, row]) for row, node in enumerate(served)}
    return Instance(
        name=f"hospital-{num_floors}x{num_wards}-seed{seed}",
        places=tuple(Place(id=n.id, x_m=n.x_m, y_m=n.y_m, floor=n.floor) for n in served),
        requests=draw_requests(stops, out_s, start_h=start_h, hours=hours, rng=rng),
        robots=tuple(
            Robot(id=f"R{k + 1:02d}", capacity=CAPACITY_SLOTS, end_s=hours * HOUR_S + OVERTIME_S)
            for k in range(num_robots)
        ),
        stations=(Station(id="chargers", place="charger", num_slots=math.ceil(num_robots / 2)),),
        travel_s=travel.travel_s,
        distance_m=travel.distance_m,
        travel_var_s2=travel.travel_var_s2,
        reload_s=RELOAD_S,
        costs=HOSPITAL_COSTS,
        site=site,
    )


def draw_requests(
    stops: list[Node],
    out_s: dict[str, float],
    *,
    start_h: float,
    hours: float,
    rng: np.random.Generator,
) -> tuple[Request, ...]:
    """Requests of all flows in order of their windows, numbered per flow.

    Parameters
    ----------
    stops
        Wards and theatres.
    out_s
        Mean travel time from the dock to each stop; a window that closes before a
        robot can be there is moved back as a whole.
    """
    drawn: list[tuple[float, float, Flow, Node]] = []
    for flow in FLOWS:
        for node in (n for n in stops if n.kind == flow.to):
            for ready_s, due_s in _windows(flow, start_h, hours, rng):
                shift_s = max(0.0, math.ceil(out_s[node.id]) - due_s)
                if due_s + shift_s <= hours * HOUR_S:
                    drawn.append((ready_s + shift_s, due_s + shift_s, flow, node))
    drawn.sort(key=lambda entry: (entry[0], entry[1], entry[2].name, entry[3].id))
    count = dict.fromkeys((flow.name for flow in FLOWS), 0)
    requests = []
    for ready_s, due_s, flow, node in drawn:
        count[flow.name] += 1
        requests.append(
            Request(
                id=f"{flow.name}-{count[flow.name]:03d}",
                place=node.id,
                kind=flow.kind,
                load=float(rng.choice(flow.loads)),
                ready_s=ready_s,
                due_s=due_s,
                service_s=flow.service_s,
                priority=flow.priority,
                tolerance_s=TOLERANCE_S[flow.priority - 1],
            )
        )
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
        # Thinning to the part of the hour inside the horizon happens by the window test.
        for moment_h in hour + rng.random(rng.poisson(rate)):
            ready_s = float(round((moment_h - start_h) * HOUR_S))
            if ready_s >= 0:
                windows.append((ready_s, ready_s + flow.window_s))
    return [(ready_s, due_s) for ready_s, due_s in windows if due_s <= hours * HOUR_S]


def hospital_site(*, num_floors: int, num_wards: int, rng: np.random.Generator) -> Site:
    """The building alone: level 0 for logistics, wards and theatres above."""
    wards_on = [
        num_wards // (num_floors - 1) + (k < num_wards % (num_floors - 1))
        for k in range(num_floors - 1)
    ]
    num_columns = math.ceil(max(wards_on) / WARDS_PER_COLUMN)
    width_m = PITCH_M * (max(num_columns, 3) + 1)
    elevators = _elevators(num_floors, num_wards, width_m, rng)
    nodes, corridors = _logistics_floor(elevators, width_m)
    first_theatre = WARDS_PER_THEATRE
    for level, num_here in enumerate(wards_on, start=1):
        num_theatres = math.ceil(num_wards / first_theatre) if level == 1 else 0
        more_nodes, more_corridors = _ward_floor(
            level, num_here, num_theatres, elevators=elevators, width_m=width_m
        )
        nodes += more_nodes
        corridors += more_corridors
    floors = [Floor(level=0, name="Logistics")]
    floors += [Floor(level=k, name=f"Floor {k}") for k in range(1, num_floors)]
    return Site(
        name=f"Hospital with {num_wards} wards",
        floors=tuple(floors),
        nodes=tuple(nodes),
        corridors=tuple(corridors),
        elevators=elevators,
    )


def _elevators(
    num_floors: int, num_wards: int, width_m: float, rng: np.random.Generator
) -> tuple[Elevator, ...]:
    """Service elevators, evenly along the building, each with its own habit of waiting."""
    count = max(2, math.ceil(num_wards / WARDS_PER_ELEVATOR))
    waits_s = rng.uniform(25.0, 55.0, size=count)
    return tuple(
        Elevator(
            id=f"lift-{k + 1}",
            floors=tuple(range(num_floors)),
            x_m=round(width_m * (2 * k + 1) / (2 * count), 1),
            y_m=RING_M / 2,
            wait_mean_s=round(float(wait_s), 1),
            wait_sd_s=round(0.8 * float(wait_s), 1),
        )
        for k, wait_s in enumerate(waits_s)
    )


def _logistics_floor(
    elevators: tuple[Elevator, ...], width_m: float
) -> tuple[list[Node], list[Corridor]]:
    """Level 0: rooms on both sides of a spine, and the sluice from the elevators to the dock."""
    nodes, corridors = [], []
    room_x = {
        kind: round(width_m * (k + 1) / (len(ROOMS) + 1), 1) for k, (kind, _) in enumerate(ROOMS)
    }
    spine = _row("0f", 0, 0.0, [*room_x.values(), *(lift.x_m for lift in elevators)])
    nodes += spine
    corridors += _chain(spine)
    for kind, name in ROOMS:
        nodes.append(Node(id=kind.value, name=name, kind=kind, x_m=room_x[kind], y_m=-ROOM_M))
        corridors.append(Corridor(start=_at(spine, room_x[kind]), end=kind.value, door_s=5.0))
    for lift in elevators:
        corridors.append(Corridor(start=lift.landing(0), end=_at(spine, lift.x_m)))
    # Clean goods leave the dock by its corridor door; what comes back from the first
    # elevator goes through the sluice, which no robot may take the other way.
    first = elevators[0]
    dock_x = room_x[NodeKind.DOCK]
    nodes.append(
        Node(id="sluice", name="Sluice for used goods", x_m=dock_x, y_m=ROOM_M)
    )
    return nodes, corridors
