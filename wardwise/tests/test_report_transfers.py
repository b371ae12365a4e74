"""The report of a day with a transfer and a breakdown."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from wardwise.fleet.check import check
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot
from wardwise.report import summarise
from wardwise.report.html import render_report

# Depot and two places on a line, 10 s = 10 m apart.
TRAVEL = np.array([[0.0, 10, 20], [10, 0, 10], [20, 10, 0]])
INSTANCE = Instance(
    name="eventful",
    places=(Place(id="depot"), Place(id="near", x_m=10.0), Place(id="far", x_m=20.0)),
    requests=(
        Request(id="d", place="near", kind=Kind.DELIVER, load=1, due_s=50, service_s=5),
        Request(
            id="t",
            origin="near",
            place="far",
            kind=Kind.TRANSFER,
            load=1,
            due_s=20,
            service_s=5,
            tolerance_s=10,
        ),
        Request(id="c", place="near", load=1, due_s=100, service_s=9),
        Request(id="e", place="far", load=1, due_s=120, service_s=5),
    ),
    robots=(Robot(id="R1", capacity=2, end_s=200),),
    travel_s=TRAVEL,
    distance_m=TRAVEL,
    reload_s=15.0,
)
# Trip 1: d at near 10-15, t from there 15-20 to far 30-35, 10 s late; home at 55.
# Trip 2: reloaded at 70; starts c at near at 80; breaks down at 85, the service cut short.
# Trip 3: out again at 90; e at far 110-115; home at 135.
PLAN = Plan(
    instance="eventful",
    trips=(
        Trip(
            robot="R1",
            depart_s=0,
            stops=(
                Stop(request="d", arrive_s=10, start_s=10),
                Stop(request="t", arrive_s=15, start_s=15, is_pickup=True),
                Stop(request="t", arrive_s=30, start_s=30),
            ),
            return_s=55,
        ),
        Trip(
            robot="R1",
            depart_s=70,
            stops=(Stop(request="c", arrive_s=80, start_s=80),),
            return_s=85,
            is_broken_off=True,
        ),
        Trip(
            robot="R1",
            depart_s=90,
            stops=(Stop(request="e", arrive_s=110, start_s=110),),
            return_s=135,
        ),
    ),
)


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(INSTANCE, PLAN, check(INSTANCE, PLAN))


def data(page):
    """The block from which the page's script draws."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page)[1])


def test_figures():
    """Out for 55, 15 and 45, one reload of 15: 130 of 200; 40, 10 and 40 m; one of four late."""
    kpis = summarise(INSTANCE, PLAN, check(INSTANCE, PLAN))
    assert kpis.is_feasible
    assert kpis.utilisation_pct == pytest.approx(65)
    assert (kpis.distance_m, kpis.num_late, kpis.on_time_pct) == (90, 1, 75)


def test_chart_has_both_stops_of_a_transfer(page):
    """The pickup is named so; lateness is the drop's, in words and in stripes."""
    stops = re.findall(r'class="stop" data-row="(\d)".*?aria-label="([^"]*)".*?</button>', page)
    assert [row for row, _ in stops] == ["0", "1", "1", "2", "3"]
    assert stops[1][1] == "t, near → far, window 0 – 20, pickup 15, late"
    assert stops[2][1] == "t, near → far, window 0 – 20, service 30, late"
    blocks = re.findall(r'class="stop".*?</button>', page)
    assert ["bar late" in block for block in blocks] == [False, False, True, False, False]


def test_table_and_facts_say_from_where_to_where(page):
    """The row has a bar for each end."""
    (row,) = re.findall(r'<tr data-row="1".*?</tr>', page, re.DOTALL)
    assert "<td>near → far</td>" in row
    assert (row.count("bar service"), row.count("bar late")) == (1, 1)
    facts = dict(data(page)["rows"][1]["facts"])
    assert facts["Place"] == "near → far"
    assert (facts["Pickup"], facts["Service"], facts["Late"]) == ("15 – 20", "30 – 35", "10")


def test_map_goes_by_the_origin_and_not_home_after_a_breakdown(page):
    """The legs of each trip; points 0, 1, 2 are the depot, near, far."""
    first, broken, last = data(page)["paths"]["R1"]
    assert first == {
        "legs": [[0, 1], [1, 1], [1, 2], [2, 0]],
        "stops": [0, 1, 1],
        "isBrokenOff": False,
    }
    assert broken == {"legs": [[0, 1]], "stops": [2], "isBrokenOff": True}
    assert last["legs"] == [[0, 2], [2, 0]]


def test_chart_ends_a_trip_at_the_breakdown(page):
    """No way home, no reload, no service after it; the axis ends at 135."""
    titles = Counter(re.findall(r'<i class="bar [^>]*title="([^"]*)"', page))
    assert titles["Trip 2, 70 to 85, broken off"] == titles["Breaks down at 85"] == 1
    assert titles["Way home"] == 2
    assert titles["Reload"] == 1
    cut = re.search(r'class="stop" data-row="2"[^>]*left:([\d.]+)%;width:([\d.]+)%', page)
    assert float(cut[1]) + float(cut[2]) == pytest.approx(100 * 85 / 135, abs=0.01)


def test_key_explains_breakdowns_where_there_are_any(page):
    """Else nobody needs to think of them."""
    assert ">Breakdown</li>" in page
    sound = Plan(instance="eventful", trips=PLAN.trips[:1], denied=("c", "e"))
    assert ">Breakdown</li>" not in render_report(INSTANCE, sound, check(INSTANCE, sound))


def test_half_a_transfer_is_missing():
    """Picked up and never dropped is not served, whatever else the verdict says."""
    first = Trip(robot="R1", depart_s=0, stops=PLAN.trips[0].stops[:2], return_s=30)
    half = Plan(instance="eventful", trips=(first, *PLAN.trips[1:]))
    report = check(INSTANCE, half)
    assert summarise(INSTANCE, half, report).on_time_pct == 75
    page = render_report(INSTANCE, half, report)
    assert re.search(r'<tr data-row="1"[^>]*data-status="missing"', page)
    assert "<b>pairing</b>" in page
