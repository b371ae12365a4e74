"""The HTML report: right figures, nothing from elsewhere, nothing that a user's text can break."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wardwise.fleet.check import check
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot
from wardwise.fleet.solvers import solve
from wardwise.generate import generate_hospital
from wardwise.report import Kpis, summarise, write_report
from wardwise.report.clock import Clock
from wardwise.report.html import render_report

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"

# Depot and two places on a line, 10 s = 10 m apart; windows of the second request shut at 35.
TINY = Instance(
    name="tiny",
    places=(Place(id="depot"), Place(id="near", x_m=10.0), Place(id="far", x_m=20.0)),
    requests=(
        Request(id="q1", place="near", kind=Kind.DELIVER, load=1, due_s=50, service_s=5),
        Request(id="q2", place="far", load=1, due_s=35, service_s=5, priority=2, tolerance_s=20),
        Request(id="q3", place="near", load=1, due_s=100, priority=1),
    ),
    robots=(Robot(id="R1", capacity=2, end_s=200), Robot(id="R2", capacity=2, end_s=200)),
    travel_s=np.array([[0.0, 10, 20], [10, 0, 10], [20, 10, 0]]),
    distance_m=np.array([[0.0, 10, 20], [10, 0, 10], [20, 10, 0]]),
    reload_s=15.0,
    costs=Costs(per_robot=100, per_metre=1, lateness_per_s=(10, 3, 1), per_denial=(900, 400, 150)),
)
# R1: near 10-15, home 25; reload to 40; far 60-65 is 25 s late, so tolerance must be wider.
LATE = replace(
    TINY, requests=(TINY.requests[0], replace(TINY.requests[1], tolerance_s=30), TINY.requests[2])
)
PLAN = Plan(
    instance="tiny",
    trips=(
        Trip(
            robot="R1",
            depart_s=0,
            stops=(Stop(request="q1", arrive_s=10, start_s=10),),
            return_s=25,
        ),
        Trip(
            robot="R1",
            depart_s=40,
            stops=(Stop(request="q2", arrive_s=60, start_s=60),),
            return_s=85,
        ),
    ),
    denied=("q3",),
)


class Page(HTMLParser):
    """Elements with their attributes, and the text of the data block."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.data: Any = None
        self._in_data = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the element."""
        self.elements.append((tag, dict(attrs)))
        self._in_data = dict(attrs).get("id") == "data"

    def handle_data(self, data: str) -> None:
        """Parse the data block."""
        if self._in_data:
            self.data = json.loads(data)
            self._in_data = False

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements with this tag."""
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def hospital() -> Instance:
    return generate_hospital(seed=1)


@pytest.fixture(scope="module")
def morning(hospital: Instance) -> Plan:
    return solve(hospital, method="insertion", time_limit=10.0, max_iterations=1, seed=1)


@pytest.fixture(scope="module")
def page(hospital: Instance, morning: Plan) -> str:
    return render_report(hospital, morning, check(hospital, morning), start_h=6)


def test_figures_of_a_plan_worked_out_by_hand():
    """One of two robots, two trips, one late, one denied."""
    assert summarise(LATE, PLAN, check(LATE, PLAN)) == Kpis(
        is_feasible=True,
        num_violations=0,
        num_requests=3,
        robots_used=1,
        robots_owned=2,
        distance_m=2 * 10 + 2 * 20,
        on_time_pct=pytest.approx(100 / 3),  # q1 of three
        num_late=1,
        late_min=25 / 60,  # 60 - 35
        num_denied=1,
        # out 25 + 45, reload 15, no waits: 85 of a shift of 200
        utilisation_pct=pytest.approx(42.5),
        trips_per_robot=2.0,
        cost=100 + 60 + 25 * 3 + 900,
    )


def test_figures_of_an_empty_plan():
    """Nothing asked and nothing driven divides by nothing."""
    empty = replace(TINY, requests=())
    kpis = summarise(empty, Plan(instance="tiny", trips=()), check(empty, PLAN))
    assert (kpis.on_time_pct, kpis.utilisation_pct, kpis.trips_per_robot) == (100.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("clock", "time_s", "text"),
    [
        (Clock(start_h=6), 5700.0, "07:35"),
        (Clock(start_h=23), 7200.0, "01:00"),  # past midnight
        (Clock(), 5700.0, "+1:35"),
        (Clock(is_plain=True), 1234.56, "1,234.6"),
        (Clock(is_plain=True), 35.0, "35"),
        (Clock(start_h=6), math.inf, "inf"),
    ],
)
def test_moments_read_as_people_write_them(clock: Clock, time_s: float, text: str):
    """Clock times, times since the start, and plain numbers."""
    assert clock.moment(time_s) == text


def test_axis_marks_full_hours():
    """From 6:30 for two hours the full hours are 7 and 8 o'clock."""
    assert Clock(start_h=6.5).ticks(7200.0) == [(1800.0, "07:00"), (5400.0, "08:00")]
    assert [label for _, label in Clock(is_plain=True).ticks(230.0)][:3] == ["0", "20", "40"]


def test_page_shows_states_and_figures():
    """On time, late and denied requests are told apart in words, and the verdict stands on top."""
    text = render_report(LATE, PLAN, check(LATE, PLAN))
    page = Page(text)
    rows = [row for row in page.all("tr") if "data-row" in row]
    assert [row["data-status"] for row in rows] == ["on time", "late", "denied"]
    assert "✓ Feasible" in text
    assert re.search(r"Robots used</dt><dd><b>1</b> of 2", text)
    assert dict(page.data["rows"][1]["facts"])["Late"] == "25"


def test_page_of_an_infeasible_plan_lists_the_violations():
    """Unknown ids and times that are no numbers do not stop the report; nobody hides them."""
    broken = Plan(
        instance="tiny",
        trips=(
            Trip(
                robot="R9",
                depart_s=0,
                stops=(
                    Stop(request="zz", arrive_s=1, start_s=1),
                    Stop(request="q1", arrive_s=math.nan, start_s=math.inf),
                ),
                return_s=math.nan,
            ),
        ),
    )
    report = check(TINY, broken)
    text = render_report(TINY, broken, report)
    assert "✕ Not feasible" in text
    assert text.count("<li><b>") == min(len(report.violations), 25)
    assert 'data-status="missing"' in text


def test_page_loads_nothing_from_elsewhere(page: str):
    """No links, no sources, no imports; the only address is the name of the SVG language."""
    elements = Page(page)
    for tag, attrs in elements.elements:
        assert tag not in {"link", "img", "iframe", "object", "base"}
        assert not {"src", "href", "action", "xlink:href"} & attrs.keys()
        assert not [name for name in attrs if name.startswith("on")]
    assert "@import" not in page
    assert set(re.findall(r"https?://[^\"')\s]+", page)) == {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r"url\(([^)]*)\)", page)) == {"#arrow"}


def test_page_of_the_default_morning_stays_below_a_megabyte(page: str):
    """About 250 requests and five floors."""
    assert len(page.encode()) < 1_000_000


def test_every_request_stands_in_table_and_chart(page: str, hospital: Instance, morning: Plan):
    """One row per request, one block per stop, one lane per used robot, one plan per floor."""
    elements = Page(page)
    rows = [row for row in elements.all("tr") if "data-row" in row]
    stops = [b for b in elements.all("button") if b.get("class") == "stop"]
    assert len(rows) == len(hospital.requests)
    assert len(stops) == sum(len(trip.stops) for trip in morning.trips)
    assert len(elements.all("figure")) == 5
    lanes = [div["data-robot"] for div in elements.all("div") if "data-robot" in div]
    assert lanes == sorted(morning.trips_by_robot())


def test_bars_stay_inside_their_axis(page: str):
    """Positions and widths are percent, and none reaches beyond the end."""
    for left, width in re.findall(r"left:([-\d.e]+)%;width:([-\d.e]+)%", page):
        assert 0 <= float(left) <= 100
        assert float(width) >= 0
        assert float(left) + float(width) <= 100.2  # rounding to 0.1 inside a block


def test_routes_follow_the_building(page: str, hospital: Instance, morning: Plan):
    """Every leg in the page is the site's own path, from the dock and back to it."""
    assert hospital.site is not None
    points = list(hospital.site.points)
    data = Page(page).data
    trips = [trip for robot in data["paths"].values() for trip in robot]
    assert len(trips) == len(morning.trips)
    for trip in trips:
        places = [hospital.requests[row].place for row in trip["stops"]]
        ends = ["dock", *places, "dock"]
        for leg, start, end in zip(trip["legs"], ends[:-1], ends[1:], strict=True):
            assert tuple(points[k] for k in leg) == hospital.site.path(start, end)


def test_controls_and_drawings_have_names(page: str):
    """Every control is labelled, every drawing is described, and ids are unique."""
    elements = Page(page)
    ids = Counter(attrs["id"] for _, attrs in elements.elements if "id" in attrs)
    assert max(ids.values()) == 1
    labelled = {label.get("for") for label in elements.all("label")}
    inside = len([label for label in elements.all("label") if "for" not in label])
    free = [c for c in elements.all("select") + elements.all("input") if c["id"] not in labelled]
    assert len(free) == inside == 3  # search, priority, status stand inside their labels
    for svg in elements.all("svg"):
        assert svg.get("aria-label") or svg.get("aria-hidden") == "true"
    for button in elements.all("button"):
        assert button["type"] == "button"
    assert elements.all("html")[0]["lang"] == "en"


def test_hostile_ids_stay_text():
    """Names full of markup arrive as names: no element or attribute of theirs exists."""
    place = replace(TINY.places[1], id=HOSTILE)
    requests = tuple(
        replace(r, id=f"{HOSTILE}{k}", place=HOSTILE if r.place == "near" else r.place)
        for k, r in enumerate(TINY.requests)
    )
    robots = (replace(TINY.robots[0], id=f"{HOSTILE}R"), TINY.robots[1])
    hostile = replace(
        TINY, name=HOSTILE, places=(TINY.places[0], place, TINY.places[2]),
        requests=requests, robots=robots,
    )  # fmt: skip
    plan = Plan(
        instance=HOSTILE,
        trips=(
            Trip(
                robot=f"{HOSTILE}R",
                depart_s=0,
                stops=(Stop(request=f"{HOSTILE}0", arrive_s=10, start_s=10),),
                return_s=25,
            ),
        ),
        denied=(f"{HOSTILE}1", "</script><script>alert(2)</script>"),
    )
    elements = Page(render_report(hostile, plan, check(hostile, plan)))
    plain = Page(render_report(LATE, PLAN, check(LATE, PLAN)))
    assert len(elements.all("script")) == len(plain.all("script")) == 2
    assert elements.all("img") == []
    assert elements.data["rows"][0]["facts"][0] == ["Request", f"{HOSTILE}0"]


def test_a_plain_instance_becomes_one_map_of_its_coordinates():
    """Without a building: one drawing, places at the scale of their coordinates."""
    elements = Page(render_report(LATE, PLAN, check(LATE, PLAN)))
    assert len(elements.all("figure")) == 1
    xs = [point[0] for point in elements.data["points"]]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1])


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path):
    """No folder: an error and no file; else exactly one file."""
    report = check(LATE, PLAN)
    with pytest.raises(OSError, match="missing"):
        write_report(LATE, PLAN, report, tmp_path / "missing" / "a.html")
    write_report(LATE, PLAN, report, tmp_path / "a.html")
    assert [file.name for file in tmp_path.iterdir()] == ["a.html"]
    assert (tmp_path / "a.html").read_text("utf-8") == render_report(LATE, PLAN, report)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1440])
def test_page_works_in_a_browser(page: str, open_page: Any, width: int):
    """Choosing a robot draws its route and filters the table; no script error, no sideways page."""
    browser = open_page(page, width)
    run = browser.execute_script
    assert browser.get_log("browser") == []
    assert run("return document.documentElement.scrollWidth") <= width
    all_rows = run("return document.querySelectorAll('tbody tr:not([hidden])').length")
    run("document.getElementById('next').click()")
    rows = run("return document.querySelectorAll('tbody tr:not([hidden])').length")
    assert 0 < rows < all_rows
    assert run("return document.querySelectorAll('.routes .one').length") > 0
    run("document.querySelector('.stop').focus()")
    assert "Window" in run("return document.getElementById('facts').textContent")
    assert browser.get_log("browser") == []
