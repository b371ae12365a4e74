"""A believable hospital and its transport requests, drawn from a seed.

The building has a logistics floor (level 0) with dock, chargers and stores along one
spine, and ward floors with a ring of two corridors, wings of wards outside the ring,
and service elevators inside it. Robots come home through a sluice that opens one way
only, so the way back is shorter than the way out.

What is carried stands in `wardwise.flows`. Every request has one end at the loading
bay beside the dock, between which and the stores staff carry; transfers, if wanted,
run straight to and from the laboratory, the pharmacy and the sterile store.

All sizes and prices below are ours, chosen to look like a working hospital; none is
taken from a publication. Replace them by what is counted on site.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from wardwise.fleet.energy import DELIVERY_ROBOT, ChargeCurve
from wardwise.fleet.problem import Costs, Instance, Place, Robot, Station
from wardwise.fleet.randomness import Promise, Randomness
from wardwise.flows import FLOWS, HOUR_S, TRANSFERS, draw_requests
from wardwise.site import Corridor, Elevator, Floor, Node, NodeKind, Site

OVERTIME_S = 1800.0  # robots may come home this long after the last window has closed
CAPACITY_SLOTS = 4.0
RELOAD_S = 90.0
# A robot's share of a day, energy and wear per metre, what a late second costs the
# ward, and what a porter costs who has to walk instead.
HOSPITAL_COSTS = Costs(
    per_robot=30.0,
    per_metre=0.002,
    lateness_per_s=(0.1, 0.02, 0.005),
    per_denial=(400.0, 120.0, 40.0),
)

# 8.8 A at 24 V (Open-RMF, rmf_demos, config/clinic): 4.55 h from empty to full.
CHARGER_W = 211.2

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


def generate_hospital(
    *,
    num_floors: int = 5,
    num_wards: int = 24,
    num_robots: int | None = None,
    start_h: float = 6.0,
    hours: float = 6.0,
    dynamic: bool = False,
    transfers: bool = False,
    batteries: bool = False,
    late_share: float | None = None,
    seed: int,
) -> Instance:
    """Draw a hospital with its requests; second 0 is `start_h` o'clock.

    Every request can be served by a robot that starts from the dock at 0 or, if it
    becomes known later, then. Requests whose window would close after the last hour
    are left out.

    Parameters
    ----------
    num_floors, num_wards
        2 to 12 with the logistics floor; 10 to 80, spread evenly over the floors above.
    num_robots
        1 to 200; `None` takes 5 robots per 12 wards.
    start_h, hours
        Start of the horizon, 0 to 23 o'clock, and its length; it ends by midnight.
    dynamic
        Whether what arises at random becomes known only when it is called in, which
        is when it is ready. The requests are those of the static day; timetables are
        known from the start in both.
    transfers
        Whether there are also transfers between wards or theatres and the
        laboratory, the pharmacy and the sterile store.
    batteries
        Whether robots have the battery `DELIVERY_ROBOT` and charge at the dock and in
        the room for chargers, and times are random as `Randomness` has them by default.
        The requests stay the same.
    late_share
        Largest probability that a request is late or a robot back late, above 0, at most
        0.5; `None`: nothing is promised. With a promise times are random, as above.

    Raises
    ------
    ValueError
        Naming the parameter and its range.
    """
    num_robots = math.ceil(num_wards * 5 / 12) if num_robots is None else num_robots
    _require_parameters(num_floors, num_wards, num_robots, start_h, hours)
    rng = np.random.default_rng(seed)
    site = hospital_site(num_floors=num_floors, num_wards=num_wards, rng=rng)
    flows = FLOWS + TRANSFERS if transfers else FLOWS
    ends = {flow.to for flow in flows} | {flow.origin for flow in flows}
    served = [site.points["dock"], site.points["charger"]]
    served += [node for node in site.nodes if node.kind in ends]
    travel = site.travel([node.id for node in served])
    marks = "-dynamic" * dynamic + "-transfers" * transfers + "-batteries" * batteries
    return Instance(
        name=f"hospital-{num_floors}x{num_wards}-seed{seed}{marks}",
        places=tuple(Place(id=n.id, x_m=n.x_m, y_m=n.y_m, floor=n.floor) for n in served),
        requests=draw_requests(
            served,
            travel.travel_s,
            flows,
            start_h=start_h,
            hours=hours,
            is_dynamic=dynamic,
            rng=rng,
        ),
        robots=_robots(num_robots, hours, batteries=batteries),
        stations=_stations(num_robots, batteries=batteries),
        travel_s=travel.travel_s,
        distance_m=travel.distance_m,
        travel_var_s2=travel.travel_var_s2,
        reload_s=RELOAD_S,
        costs=HOSPITAL_COSTS,
        site=site,
        randomness=Randomness() if batteries or late_share is not None else None,
        promise=None
        if late_share is None
        else Promise(late_share=(late_share, late_share, late_share), return_share=late_share),
    )


def _robots(count: int, hours: float, *, batteries: bool) -> tuple[Robot, ...]:
    end_s = hours * HOUR_S + OVERTIME_S
    battery = DELIVERY_ROBOT if batteries else None
    return tuple(
        Robot(id=f"R{k + 1:02d}", capacity=CAPACITY_SLOTS, end_s=end_s, battery=battery)
        for k in range(count)
    )


def _stations(num_robots: int, *, batteries: bool) -> tuple[Station, ...]:
    """Room for half of the robots beside the dock; with batteries, for as many at the dock."""
    num_slots = math.ceil(num_robots / 2)
    if not batteries:
        return (Station(id="chargers", place="charger", num_slots=num_slots),)
    charge = ChargeCurve.linear(DELIVERY_ROBOT.capacity_wh, HOUR_S / CHARGER_W)
    return tuple(
        Station(id=id_, place=place, num_slots=num_slots, charge=charge)
        for id_, place in (("dock", "dock"), ("chargers", "charger"))
    )


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
