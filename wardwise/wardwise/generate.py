"""A believable hospital and its transport requests, drawn from a seed.

The building has a logistics floor (level 0) with dock, chargers and stores along one
spine, and ward floors with a ring of two corridors, wings of wards outside the ring,
and service elevators inside it. Robots come home through a sluice that opens one way
only, so the way back is shorter than the way out.

Every request has one end at the loading bay beside the dock: `deliver` runs from
the bay to a ward or theatre, `collect` from there to the bay. Staff carry between
the bay and the stores.

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
CAPACITY_SLOTS = 4.0
RELOAD_S = 90.0
TOLERANCE_S = (0.0, 300.0, 600.0)  # stat, urgent, routine
# A robot's share of a day, energy and wear per metre, what a late second costs the
# ward, and what a porter costs who has to walk instead.
HOSPITAL_COSTS = Costs(
    per_robot=30.0,
    per_metre=0.002,
    lateness_per_s=(0.1, 0.02, 0.005),
    per_denial=(400.0, 120.0, 40.0),
)

PITCH_M = 40.0  # between two wings
RING_M = 36.0  # between the two corridors of a ward floor
WING_M = (18.0, 38.0)  # from the corridor to the first and second ward of a wing
ROOM_M = (18.0, 40.0)  # from the spine of the logistics floor to its two rows of rooms
SLUICE_M = 6.0  # from the dock's own corridor to the sluice
THEATRE_M = 18.0  # between two theatres
WARDS_PER_COLUMN = 4
WARDS_PER_ELEVATOR = 12
WARDS_PER_THEATRE = 8

ROOMS = (
    (NodeKind.LINEN, "Linen store"),
    (NodeKind.WASTE, "Waste room"),
    (NodeKind.DOCK, "Dock"),
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


def generate_hospital(
    *,
    num_floors: int = 5,
    num_wards: int = 24,
    num_robots: int | None = None,
    start_h: float = 6.0,
    hours: float = 6.0,
    seed: int,
) -> Instance:
    """Draw a hospital with its requests; second 0 is `start_h` o'clock.

    Every request is known from the start and can be served by a robot that starts
    then. Requests whose window would close after the last hour are left out.

    Parameters
    ----------
    num_floors, num_wards
        2 to 12 with the logistics floor; 10 to 80, spread evenly over the floors above.
    num_robots
        1 to 200; `None` takes 5 robots per 12 wards.
    start_h, hours
        Start of the horizon, 0 to 23 o'clock, and its length; it ends by midnight.

    Raises
    ------
    ValueError
        Naming the parameter and its range.
    """
    num_robots = math.ceil(num_wards * 5 / 12) if num_robots is None else num_robots
    _require_parameters(num_floors, num_wards, num_robots, start_h, hours)
    rng = np.random.default_rng(seed)
    site = hospital_site(num_floors=num_floors, num_wards=num_wards, rng=rng)
    stops = [n for n in site.nodes if n.kind in (NodeKind.WARD, NodeKind.THEATRE)]
    served = [site.points["dock"], site.points["charger"], *stops]
    travel = site.travel([node.id for node in served])
    out_s = dict(zip((node.id for node in served), travel.travel_s[0].tolist(), strict=True))
    return Instance(
        name=f"hospital-{num_floors}x{num_wards}-seed{seed}",
        places=tuple(Place(id=n.id, x_m=n.x_m, y_m=n.y_m, floor=n.floor) for n in served),
        requests=draw_requests(stops, out_s, start_h=start_h, hours=hours, rng=rng),
        robots=_robots(num_robots, hours),
        stations=(Station(id="chargers", place="charger", num_slots=math.ceil(num_robots / 2)),),
        travel_s=travel.travel_s,
        distance_m=travel.distance_m,
        travel_var_s2=travel.travel_var_s2,
        reload_s=RELOAD_S,
        costs=HOSPITAL_COSTS,
        site=site,
    )


def _robots(count: int, hours: float) -> tuple[Robot, ...]:
    end_s = hours * HOUR_S + OVERTIME_S
    return tuple(
        Robot(id=f"R{k + 1:02d}", capacity=CAPACITY_SLOTS, end_s=end_s) for k in range(count)
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
        for moment_h in hour + rng.random(rng.poisson(rate)):
            ready_s = float(round((moment_h - start_h) * HOUR_S))
            if ready_s >= 0:
                windows.append((ready_s, ready_s + flow.window_s))
    return [(ready_s, due_s) for ready_s, due_s in windows if due_s <= hours * HOUR_S]


def hospital_site(*, num_floors: int, num_wards: int, rng: np.random.Generator) -> Site:
    """The building alone: level 0 for logistics, wards and theatres above."""
    wards_on = [len(part) for part in np.array_split(np.arange(num_wards), num_floors - 1)]
    num_columns = math.ceil(max(wards_on) / WARDS_PER_COLUMN)
    width_m = PITCH_M * (max(num_columns, 3) + 1)
    elevators = _elevators(num_floors, num_wards, width_m, rng)
    nodes, corridors = _logistics_floor(elevators, width_m)
    for level, num_here in enumerate(wards_on, start=1):
        num_theatres = math.ceil(num_wards / WARDS_PER_THEATRE) if level == 1 else 0
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
    """Level 0: rooms along a spine, and the sluice from the elevators to the dock."""
    nodes, corridors = [], []
    room_x = {
        kind: round(width_m * (k + 1) / (len(ROOMS) + 1), 1) for k, (kind, _) in enumerate(ROOMS)
    }
    spine = _row("0f", 0, 0.0, [*room_x.values(), *(lift.x_m for lift in elevators)])
    nodes += spine
    corridors += _chain(spine)
    for k, (kind, name) in enumerate(ROOMS):
        y_m = -ROOM_M[k % 2]
        nodes.append(Node(id=kind.value, name=name, kind=kind, x_m=room_x[kind], y_m=y_m))
        corridors.append(Corridor(start=_at(spine, room_x[kind]), end=kind.value, door_s=5.0))
    for lift in elevators:
        corridors.append(Corridor(start=lift.landing(0), end=_at(spine, lift.x_m), door_s=3.0))
    # Clean goods leave the dock by a lock of two doors. Robots come back through the
    # sluice for used goods, which nobody may take the other way.
    dock_x = room_x[NodeKind.DOCK]
    lift_x = min((lift.x_m for lift in elevators), key=lambda x: abs(x - dock_x))
    sluice_x = dock_x + math.copysign(SLUICE_M, lift_x - dock_x)
    nodes.append(Node(id="sluice", name="Sluice", x_m=sluice_x, y_m=-ROOM_M[0] / 2))
    corridors.append(Corridor(start=_at(spine, lift_x), end="sluice", door_s=3.0))
    corridors.append(Corridor(start="sluice", end="dock", door_s=3.0, one_way=True))
    return nodes, corridors


def _ward_floor(
    level: int,
    num_wards: int,
    num_theatres: int,
    *,
    elevators: tuple[Elevator, ...],
    width_m: float,
) -> tuple[list[Node], list[Corridor]]:
    """A ring of two corridors; wards in wings outside it, theatres beyond its far end."""
    columns_x = [PITCH_M * (k + 1) for k in range(round(width_m / PITCH_M) - 1)]
    stops_x = [0.0, *columns_x, *(lift.x_m for lift in elevators), width_m]
    front = _row(f"{level}f", level, 0.0, stops_x)
    rear = _row(f"{level}r", level, RING_M, stops_x)
    nodes = front + rear
    # Visitors walk in the front corridor; fire doors stand at both ends of the ring.
    corridors = [*_chain(front, speed_factor=0.85), *_chain(rear)]
    corridors += [
        Corridor(start=a.id, end=b.id, door_s=4.0)
        for a, b in ((front[0], rear[0]), (front[-1], rear[-1]))
    ]
    for lift in elevators:
        corridors.append(Corridor(start=lift.landing(level), end=_at(front, lift.x_m)))
        corridors.append(Corridor(start=lift.landing(level), end=_at(rear, lift.x_m)))
    for index in range(num_wards):
        # Near wards first, column by column on both sides, then the far ones behind them.
        place, is_rear = divmod(index, 2)
        is_far, column = divmod(place, len(columns_x))
        y_m = RING_M + WING_M[is_far] if is_rear else -WING_M[is_far]
        near = f"ward-{100 * level + index + 1 - 2 * len(columns_x)}"
        ward = _room(NodeKind.WARD, 100 * level + index + 1, level, columns_x[column], y_m)
        nodes.append(ward)
        before = near if is_far else _at(rear if is_rear else front, ward.x_m)
        corridors.append(Corridor(start=before, end=ward.id, door_s=4.0))
    for index in range(num_theatres):
        place, is_rear = divmod(index, 2)
        depth_m = THEATRE_M * (place + 1)
        y_m = RING_M + depth_m if is_rear else -depth_m
        theatre = _room(NodeKind.THEATRE, index + 1, level, width_m, y_m)
        nodes.append(theatre)
        before = f"theatre-{index - 1}" if place else (rear if is_rear else front)[-1].id
        corridors.append(Corridor(start=before, end=theatre.id, door_s=6.0))
    return nodes, corridors


def _room(kind: NodeKind, number: int, level: int, x_m: float, y_m: float) -> Node:
    """A ward or theatre, named after its number."""
    name = f"{kind.value.capitalize()} {number}"
    return Node(id=f"{kind.value}-{number}", name=name, kind=kind, floor=level, x_m=x_m, y_m=y_m)


def _row(prefix: str, level: int, y_m: float, stops_x: list[float]) -> list[Node]:
    """Junctions of a straight corridor at the given places, each place once."""
    return [
        Node(id=f"{prefix}{k}", name="", floor=level, x_m=x_m, y_m=y_m)
        for k, x_m in enumerate(sorted(set(stops_x)))
    ]


def _chain(row: list[Node], *, speed_factor: float = 1.0) -> list[Corridor]:
    return [Corridor(start=a.id, end=b.id, speed_factor=speed_factor) for a, b in pairwise(row)]


def _at(row: list[Node], x_m: float) -> str:
    return next(node.id for node in row if node.x_m == x_m)


def _require_parameters(
    num_floors: int, num_wards: int, num_robots: int, start_h: float, hours: float
) -> None:
    _require_range("num_floors", num_floors, 2, 12)
    _require_range("num_wards", num_wards, 10, 80)
    _require_range("num_robots", num_robots, 1, 200)
    _require_range("start_h", start_h, 0, 23)
    _require_range("hours", hours, 1, 24 - start_h)


def _require_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}: expected {low:g} to {high:g}, got {value:g}")
