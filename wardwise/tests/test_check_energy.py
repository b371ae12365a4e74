"""The referee on batteries, charges, stations and goods that come later."""

from dataclasses import replace

import numpy as np
import pytest

from wardwise.fleet.check import Constraint, check
from wardwise.fleet.energy import Battery, ChargeCurve, Recharge
from wardwise.fleet.plan import Charge, Plan, Stop, Trip
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot, Station

# depot 0, ward at 60 m, charger at 90 m on the same line; one metre takes a second and a
# watt-hour, so that out, on to the charger and home again takes 180 of 150 Wh.
X_M = (0.0, 60.0, 90.0)
DISTANCE_M = np.abs(np.subtract.outer(X_M, X_M))
RATE_S_PER_WH = 2.0


def line(**changes) -> Instance:
    """The instance above, with other fields."""
    fields = {
        "name": "line",
        "places": tuple(Place(id=name, x_m=x) for name, x in zip("dwc", X_M, strict=True)),
        "requests": (Request(id="r", place="w", due_s=1000.0, load=1.0, service_s=10.0),),
        "robots": tuple(
            Robot(id=name, capacity=1.0, end_s=1000.0, battery=Battery(capacity_wh=150, wh_per_m=1))
            for name in "ab"
        ),
        "travel_s": DISTANCE_M,
        "distance_m": DISTANCE_M,
        "stations": (
            Station(id="s", place="c", charge=ChargeCurve.linear(150.0, RATE_S_PER_WH)),
            Station(id="depot", place="d", charge=ChargeCurve.linear(150.0, RATE_S_PER_WH)),
        ),
    }
    return Instance(**(fields | changes))


# At the ward at 60 s, at the charger at 100 s with 60 Wh; 30 Wh suffice for the way home.
CHARGE = Charge(station="s", before=1, arrive_s=100.0, start_s=100.0, end_s=160.0, charged_wh=30.0)
STOP = Stop(request="r", arrive_s=60.0, start_s=60.0)


def one_trip(charge: Charge = CHARGE, *, return_s: float = 250.0, depart_s: float = 0.0) -> Plan:
    """Depot, ward, charge, depot."""
    trip = Trip(robot="a", depart_s=depart_s, stops=(STOP,), return_s=return_s, charges=(charge,))
    return Plan(instance="line", trips=(trip,))


def broken_rules(instance: Instance, plan: Plan) -> list[Constraint]:
    """Rules that the plan breaks."""
    return [violation.constraint for violation in check(instance, plan).violations]


def test_charge_on_the_way_is_feasible_and_counted():
    """Metres include the detour, and energy taken and charged are stated."""
    report = check(line(), one_trip())
    assert report.violations == ()
    assert report.cost.distance_m == pytest.approx(180.0)
    assert report.cost.energy_wh == pytest.approx(180.0)
    assert (report.cost.charged_wh, report.cost.num_charges) == (30.0, 1)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"charged_wh": 29.0}, Constraint.BATTERY),
        ({"charged_wh": 91.0, "end_s": 300.0}, Constraint.OVERCHARGE),
        ({"end_s": 159.0}, Constraint.CHARGING),
        ({"charged_wh": -1.0}, Constraint.CHARGING),
        ({"arrive_s": 99.0}, Constraint.TRAVEL),
        ({"start_s": 99.0}, Constraint.WAITING),
        ({"end_s": float("nan")}, Constraint.NON_FINITE),
        ({"station": "x"}, Constraint.UNKNOWN_STATION),
    ],
)
def test_each_wrong_charge_breaks_its_rule(change, rule):
    """One changed field of the feasible charge is found where it is."""
    plan = one_trip(replace(CHARGE, **change), return_s=400.0)
    assert rule in broken_rules(line(), plan)


def test_reserve_is_not_touched():
    """With a reserve of one watt-hour the same charge is one too few."""
    battery = Battery(capacity_wh=150.0, reserve_wh=1.0, wh_per_m=1.0)
    robots = tuple(replace(robot, battery=battery) for robot in line().robots)
    assert broken_rules(line(robots=robots), one_trip()) == [Constraint.BATTERY]


def test_base_load_is_drawn_while_waiting():
    """A robot that is switched on for ten seconds of service takes ten seconds of its base load."""
    battery = Battery(capacity_wh=150.0, wh_per_m=1.0, base_w=3600.0 * 0.01)
    robots = tuple(replace(robot, battery=battery) for robot in line().robots)
    plan = one_trip(replace(CHARGE, charged_wh=40.0, end_s=180.0), return_s=270.0)
    # 180 s of driving and 10 s of service, a hundredth of a watt-hour each.
    assert check(line(robots=robots), plan).cost.energy_wh == pytest.approx(180.0 + 1.9)


def test_full_recharge_is_demanded_where_it_is_the_rule():
    """Charging less than full breaks the rule; charging full does not."""
    instance = line(recharge=Recharge.FULL)
    assert broken_rules(instance, one_trip()) == [Constraint.RECHARGE]
    full = replace(CHARGE, charged_wh=90.0, end_s=280.0)
    assert broken_rules(instance, one_trip(full, return_s=370.0)) == []


def test_charge_without_a_battery_is_refused():
    """A robot without a battery cannot be charged."""
    robots = tuple(replace(robot, battery=None) for robot in line().robots)
    assert broken_rules(line(robots=robots), one_trip()) == [Constraint.CHARGING]


def test_two_robots_do_not_share_a_slot():
    """Of two charges at once at a station with one slot the second is at fault."""
    requests = tuple(replace(line().requests[0], id=name) for name in "rq")
    trips = tuple(
        Trip(
            robot=robot, depart_s=0.0, stops=(replace(STOP, request=name),), return_s=250.0,
            charges=(CHARGE,),
        )
        for robot, name in zip("ab", "rq", strict=True)
    )  # fmt: skip
    plan = Plan(instance="line", trips=trips)
    assert broken_rules(line(requests=requests), plan) == [Constraint.SLOTS]
    stations = tuple(replace(station, num_slots=2) for station in line().stations)
    assert broken_rules(line(requests=requests, stations=stations), plan) == []


def test_charge_at_the_depot_may_overlap_the_reload():
    """A robot charged while it is reloaded leaves when both are done, not before."""
    requests = tuple(replace(line().requests[0], id=name) for name in "rq")
    instance = line(requests=requests, reload_s=50.0)
    first = Trip(robot="a", depart_s=0.0, stops=(STOP,), return_s=130.0)

    def second(depart_s: float) -> Plan:
        charge = Charge(
            station="depot", before=0, arrive_s=130.0, start_s=130.0, end_s=310.0, charged_wh=90.0
        )
        stop = Stop(request="q", arrive_s=depart_s + 60.0, start_s=depart_s + 60.0)
        trip = Trip(
            robot="a", depart_s=depart_s, stops=(stop,), return_s=depart_s + 130.0,
            charges=(charge,),
        )  # fmt: skip
        return Plan(instance="line", trips=(first, trip))

    assert broken_rules(instance, second(310.0)) == []
    assert broken_rules(instance, second(309.0)) == [Constraint.CHARGING]


def test_trip_does_not_leave_before_its_goods_are_there():
    """Goods of a delivery that come at 5 s cannot leave at 0 s."""
    request = replace(line().requests[0], kind=Kind.DELIVER, available_s=5.0)
    instance = line(requests=(request,))
    assert broken_rules(instance, one_trip()) == [Constraint.GOODS]
