"""Charging of settled trips: against frvcpy, linear programmes, and all insertions."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise, permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.fleet.bounds import direct_legs, possible_legs
from wardwise.fleet.charging import Charged, Obstacle, charge_trips
from wardwise.fleet.charging.program import least_end_s
from wardwise.fleet.check import check
from wardwise.fleet.energy import HOUR_S, Battery, ChargeCurve, Recharge
from wardwise.fleet.plan import ChargeVisit
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.schedule import schedule


def plane(points, requests, stations, battery, *, recharge=Recharge.PARTIAL, **more):
    """Places in the plane, one metre a second, the depot first; one robot."""
    xy = np.array(points, dtype=float)
    way = np.hypot(*(xy[:, None] - xy[None, :]).transpose(2, 0, 1))
    robot = {key: more.pop(key) for key in ("end_s", "start_s", "max_trips") if key in more}
    return Instance(
        name="plane",
        places=tuple(Place(id=f"p{k}", x_m=float(x), y_m=float(y)) for k, (x, y) in enumerate(xy)),
        requests=tuple(requests),
        robots=(Robot(id="r", capacity=9.0, battery=battery, **{"end_s": 1e6, **robot}),),
        stations=tuple(stations),
        travel_s=way,
        distance_m=more.pop("distance_m", way),
        recharge=recharge,
        **more,
    )


def random_plane(seed, *, num_requests=4, num_stations=2, curves, due_s=1e5, **more):
    """Requests and stations at random in a square of 100 m; batteries of about 150 m."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 100, (1 + num_requests + num_stations, 2))
    points[0] = 50, 50
    requests = [
        Request(id=str(k), place=f"p{k + 1}", due_s=due_s, service_s=float(rng.integers(0, 20)))
        for k in range(num_requests)
    ]
    if due_s < 1e5:
        ready = np.sort(rng.uniform(0, due_s, num_requests))
        requests = [
            replace(r, ready_s=float(t), due_s=float(t) + 130)
            for r, t in zip(requests, ready, strict=True)
        ]
    stations = [
        Station(id=f"s{k}", place=f"p{1 + num_requests + k}", charge=curves[k % len(curves)])
        for k in range(num_stations)
    ]
    battery = more.pop("battery", Battery(capacity_wh=150.0, wh_per_m=1.0))
    return plane(points, requests, stations, battery, **more)


LINEAR = ChargeCurve.linear(150.0, 2.0)
SLOW = ChargeCurve(points=((0, 0), (100, 300), (140, 500), (150, 900)))
QUICK = ChargeCurve(points=((0, 0), (110, 90), (135, 300), (150, 1200)))


@pytest.mark.parametrize("curves", [[LINEAR], [SLOW, QUICK]], ids=["linear", "piecewise"])
@pytest.mark.parametrize("seed", range(12))
def test_least_time_equals_frvcpy(curves, seed):
    """With all distances 0 the least distance is the least time, which frvcpy computes.

    It wants to reach a charger from every place, from the depot at the end, too; so one
    stands there.
    """
    solver = pytest.importorskip("frvcpy.solver")
    battery = Battery(capacity_wh=150.0, base_w=HOUR_S)  # 1 Wh a second
    instance = random_plane(seed, num_requests=5, num_stations=4, curves=curves, battery=battery)
    home = Station(id="home", place="p0", charge=curves[0])
    instance = replace(
        instance,
        distance_m=np.zeros_like(instance.travel_s),
        requests=tuple(replace(r, service_s=0.0) for r in instance.requests),
        stations=(*instance.stations, home),
    )
    nodes = [*range(10), 0]
    way = instance.travel_s[np.ix_(nodes, nodes)].tolist()
    types = [k % len(curves) for k in (0, 1, 2, 3, 0)]
    ours = charge_trips(instance, "r", [[r.id for r in instance.requests]])
    theirs, _ = solver.Solver(
        {
            "max_q": 150.0,
            "t_max": 1e6,
            "css": [{"node_id": 6 + k, "cs_type": kind} for k, kind in enumerate(types)],
            "process_times": [0.0] * 11,
            "breakpoints_by_type": [
                {
                    "cs_type": k,
                    "time": [t for _, t in curve.points],
                    "charge": [q for q, _ in curve.points],
                }
                for k, curve in enumerate(curves)
            ],
            "energy_matrix": way,
            "time_matrix": way,
        },
        [0, 1, 2, 3, 4, 5, 0],
        150.0,
    ).solve()
    assert isinstance(ours, Charged)
    if (seed, len(curves)) == (7, 1):
        # It misses the best, which reaches a station with nothing left, as this confirms.
        ours_end_s = least_end_s(instance, instance.robots[0], ours.trips[0])
        assert ours.end_s == pytest.approx(ours_end_s, abs=1e-5)
        assert ours.end_s < theirs
    else:
        assert ours.end_s == pytest.approx(theirs, abs=1e-5)


def all_insertions(instance, order):
    """A trip with up to two stations in a row at every position, with its metres."""
    chains = [(), *permutations([s.id for s in instance.stations], 1)]
    chains += list(permutations([s.id for s in instance.stations], 2))
    places = {r.id: instance.place_index[r.place] for r in instance.requests}
    stops = {s.id: instance.place_index[s.place] for s in instance.stations}
    for choice in product(chains, repeat=len(order) + 1):
        visits = []
        for k, chain in enumerate(choice):
            visits += [ChargeVisit(station=s) for s in chain]
            visits += order[k : k + 1]
        way = [0, *(stops[v.station] if not isinstance(v, str) else places[v] for v in visits), 0]
        yield visits, sum(float(instance.distance_m[leg]) for leg in pairwise(way))


@pytest.mark.parametrize("seed", range(10))
def test_partial_charging_equals_the_best_linear_programme(seed):
    """Of all insertions of stations the shortest that is feasible, and its earliest end."""
    instance = random_plane(seed, num_requests=2, curves=[LINEAR], due_s=250)
    order = [r.id for r in instance.requests]
    best = None
    for visits, metres in sorted(all_insertions(instance, order), key=lambda way: way[1]):
        if best is not None and metres > best[0] + 1e-7:
            break
        end_s = least_end_s(instance, instance.robots[0], visits)
        if end_s is not None and (best is None or end_s < best[1]):
            best = metres, end_s
    found = charge_trips(instance, "r", [order])
    if best is None:
        assert isinstance(found, Obstacle)
    else:
        assert isinstance(found, Charged)
        assert (found.distance_m, found.end_s) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("recharge", Recharge)
def test_no_insertion_that_can_be_scheduled_is_shorter(seed, recharge):
    """All insertions with full charges, timed by `schedule`: never better, equal if all is full."""
    instance = random_plane(
        seed, num_requests=2, curves=[SLOW, QUICK], due_s=400, recharge=recharge,
        battery=Battery(capacity_wh=150.0, reserve_wh=5.0, wh_per_m=0.9, base_w=200.0),
    )  # fmt: skip
    order = [r.id for r in instance.requests]
    best = None
    for visits, metres in sorted(all_insertions(instance, order), key=lambda way: way[1]):
        if best is not None and metres > best[0] + 1e-7:
            break
        try:
            plan = schedule(instance, {"r": [visits]})
        except ValueError:
            continue
        end_s = plan.trips[0].return_s
        if best is None or end_s < best[1]:
            best = metres, end_s
    found = charge_trips(instance, "r", [order])
    if isinstance(found, Obstacle):
        assert best is None
        return
    report = check(instance, schedule(instance, {"r": found.trips}))
    assert report.is_feasible
    assert report.cost.distance_m == pytest.approx(found.distance_m)
    if recharge is Recharge.FULL:
        assert (found.distance_m, found.end_s) == pytest.approx(best, abs=1e-5)
    elif best is not None:
        assert found.distance_m <= best[0] + 1e-6
        assert found.distance_m < best[0] - 1e-6 or found.end_s <= best[1] + 1e-5


@given(
    seed=st.integers(0, 10_000),
    base_w=st.sampled_from([0.0, 200.0, 1000.0]),
    start_wh=st.floats(60.0, 150.0),
    reload_s=st.sampled_from([0.0, 30.0, 400.0]),
    recharge=st.sampled_from(list(Recharge)),
)
def test_schedule_drives_what_charging_answers(seed, base_w, start_wh, reload_s, recharge):
    """Over two trips with a charger at the depot, times and metres are those of the referee."""
    battery = Battery(
        capacity_wh=150.0, reserve_wh=5.0, start_wh=start_wh, wh_per_m=0.8, base_w=base_w
    )
    try:
        instance = random_plane(
            seed, curves=[SLOW, QUICK], battery=battery, reload_s=reload_s, recharge=recharge
        )
    except ValueError:
        return  # out of reach of a full battery
    home = Station(id="home", place="p0", charge=QUICK)
    goods = replace(instance.requests[2], kind=Kind.DELIVER, available_s=300.0)
    requests = (*instance.requests[:2], goods, *instance.requests[3:])
    instance = replace(instance, stations=(*instance.stations, home), requests=requests)
    found = charge_trips(instance, "r", [["0", "1"], ["2", "3"]])
    if isinstance(found, Charged):
        plan = schedule(instance, {"r": found.trips})
        report = check(instance, plan)
        assert report.is_feasible, report.violations
        assert report.cost.distance_m == pytest.approx(found.distance_m)
        assert plan.trips[-1].return_s == pytest.approx(found.end_s)


def test_charging_while_the_robot_is_loaded_takes_no_time():
    """40 m out and back twice with 100 Wh: the depot charges 60 Wh in 120 s of reloading."""
    requests = [Request(id=k, place="p1", due_s=1e5) for k in "ab"]
    battery = Battery(capacity_wh=100.0, wh_per_m=1.0)
    home = Station(id="home", place="p0", charge=ChargeCurve.linear(100.0, 2.0))
    instance = plane([(0, 0), (40, 0)], requests, [home], battery, reload_s=120.0)
    found = charge_trips(instance, "r", [["a"], ["b"]])
    # 80 s out and back, reload, 80 s; 20 Wh left + 60 suffice for 80 m
    assert (found.distance_m, found.end_s) == (160.0, 280.0)
    assert found.trips == (("a",), (ChargeVisit(station="home", charged_wh=60.0), "b"))
    slow = replace(instance, reload_s=100.0)  # needs 60 Wh, 120 s
    assert charge_trips(slow, "r", [["a"], ["b"]]).end_s == pytest.approx(280.0)


def test_no_charge_where_none_is_needed():
    """A battery that lasts visits no station."""
    instance = random_plane(3, curves=[LINEAR], battery=Battery(capacity_wh=150.0, wh_per_m=0.01))
    found = charge_trips(instance, "r", [[r.id for r in instance.requests]])
    assert found.trips == (tuple(r.id for r in instance.requests),)


def test_the_first_constraint_to_fail_is_named():
    """Window, shift, capacity and trips are told apart from the battery."""
    requests = [Request(id=k, place="p1", due_s=60.0, load=5) for k in "ab"]
    requests.append(Request(id="c", place="p2", due_s=1e4))
    battery = Battery(capacity_wh=100.0, wh_per_m=1.0)
    instance = plane([(0, 0), (40, 0), (-40, 0)], requests, [], battery, end_s=1e4, max_trips=2)

    def finding(*trips):
        found = charge_trips(instance, "r", trips)
        assert isinstance(found, Obstacle)
        return found.constraint, found.request

    assert finding("ab") == ("capacity", "b")
    assert finding("a", "b") == ("window", "b")
    assert finding("ac") == ("battery", "c")
    assert finding("a", "c", "b") == ("max-trips", None)
    short = replace(instance, robots=(replace(instance.robots[0], end_s=100.0),))
    # a alone is back at 80; c after it at 160
    assert charge_trips(short, "r", ["a", "c"]).constraint == "shift"
    assert "before" not in charge_trips(short, "r", ["a", "c"]).message


def test_unknown_robots_requests_and_empty_trips_are_refused():
    """One line that names what is wrong."""
    instance = random_plane(3, curves=[LINEAR])
    with pytest.raises(ValueError, match="robot 'x': no robot of this name in 'plane'"):
        charge_trips(instance, "x", [])
    with pytest.raises(ValueError, match="request 'z': no request of this name"):
        charge_trips(instance, "r", [["z"]])
    with pytest.raises(ValueError, match="trip: expected at least one request, got none"):
        charge_trips(instance, "r", [[]])
    assert charge_trips(instance, "r", []).distance_m == 0.0


def test_linear_programmes_refuse_chargers_that_slow_down():
    """Their time is not linear in the amount."""
    instance = random_plane(3, curves=[SLOW])
    with pytest.raises(ValueError, match="station 's0': charge: expected one rate"):
        least_end_s(instance, instance.robots[0], [ChargeVisit(station="s0")])


@pytest.mark.slow
@given(
    seed=st.integers(0, 10_000),
    dues=st.lists(st.integers(71, 250), min_size=3, max_size=3),
    readies=st.lists(st.integers(0, 70), min_size=3, max_size=3),
    capacity_wh=st.integers(150, 260),
)
@settings(max_examples=50)
def test_no_trip_has_an_impossible_leg(seed, dues, readies, capacity_wh):
    """Exact charging of all orders of all subsets finds none that drives an excluded leg."""
    battery = Battery(capacity_wh=capacity_wh, wh_per_m=1.0)
    instance = random_plane(seed, num_requests=3, curves=[LINEAR], num_stations=1)
    requests = tuple(
        replace(r, ready_s=readies[k], due_s=dues[k] + 20, load=4.0)
        for k, r in enumerate(instance.requests)
    )
    try:
        curve = ChargeCurve.linear(300.0, 0.5)
        stations = tuple(replace(s, charge=curve) for s in instance.stations)
        robots = tuple(replace(r, battery=battery) for r in instance.robots)
        instance = replace(instance, requests=requests, stations=stations, robots=robots)
    except ValueError:
        return
    direct, possible = direct_legs(instance), possible_legs(instance)
    for order in [o for size in (2, 3) for s in combinations("012", size) for o in permutations(s)]:
        found = charge_trips(instance, "r", [order])
        if not isinstance(found, Charged):
            continue
        assert all(possible[int(one), int(other)] for one, other in pairwise(order))
        for one, other in pairwise(found.trips[0]):
            if isinstance(one, str) and isinstance(other, str):
                assert direct[int(one), int(other)]
