"""The page of a live day: what its parts say and hold, worked out by hand and by other means."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wardwise.dynamism import make_dynamic
from wardwise.fleet.dispatch import Dispatcher, Policy, Status
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.fleet.problem import Instance, Place, Request, Robot
from wardwise.fleet.replay import Reoptimisation, Replay, replay_day
from wardwise.fleet.solvers import solve
from wardwise.generate import generate_hospital
from wardwise.report.answers import first_kpis, histogram_of, levels_of
from wardwise.report.clock import Clock
from wardwise.report.feed import denials_of, feed_of
from wardwise.report.floormap import timed_ways
from wardwise.report.live import render_live_report, write_live_report
from wardwise.report.timeline import Moment, legs_of, moments_of

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
PLAIN = Clock(is_plain=True)

# Depot, near and far on a line, 10 s = 10 m apart; one robot with two slots.
TRAVEL = np.array([[0.0, 10, 20], [10, 0, 10], [20, 10, 0]])
SHORT = Instance(
    name="short day",
    places=(Place(id="depot"), Place(id="near", x_m=10.0), Place(id="far", x_m=20.0)),
    requests=(
        Request(id="k", place="near", load=1, due_s=50, service_s=5),
        Request(id="a", place="far", load=1, due_s=100, service_s=5, release_s=5, priority=2),
        Request(id="b", place="near", load=2, due_s=30, service_s=5, release_s=6, priority=1),
        Request(id="c", place="far", load=1, due_s=15, release_s=8),
        Request(id="w", place="far", load=2, due_s=90, release_s=9),
    ),
    robots=(Robot(id="R1", capacity=2, end_s=200),),
    travel_s=TRAVEL,
    distance_m=TRAVEL,
    reload_s=15.0,
)
# k at near 10-15, home 25.
FIRST = Plan(
    instance="short day",
    trips=(
        Trip(
            robot="R1",
            depart_s=0,
            stops=(Stop(request="k", arrive_s=10, start_s=10),),
            return_s=25,
        ),
    ),
)


@pytest.fixture(scope="module")
def short() -> Replay:
    """One robot's day: two requests join it, one is denied, one comes too late."""
    # At 5 a joins behind k: far 25-30, home 50. At 6 b is denied: a second trip would be at near
    # at 50 + 15 + 10 = 75, 45 s after it is due. At 8 c is too late even for a robot at the depot,
    # there at 28. At 9 w opens a second trip: leaves at 65, far at 85, home at 105.
    return replay_day(SHORT, first_plan=FIRST)


@pytest.fixture(scope="module")
def hospital_day() -> Replay:
    """300 requests, too few robots, every rule switched on."""
    return replay_day(
        generate_hospital(num_robots=5, dynamic=True, transfers=True, seed=1),
        policy=Policy(protection=(0, 0, 1), may_eject=True, may_hold=True),
        method="insertion",
        max_iterations=1,
        seed=1,
        reoptimisation=Reoptimisation(max_iterations=200),
    )


@pytest.fixture(scope="module")
def page(hospital_day: Replay) -> str:
    return render_live_report(hospital_day, start_h=6)


@pytest.fixture(scope="module")
def plain_day() -> Replay:
    """A day without a building: forty requests at random, half of them dynamic, two robots."""
    rng = np.random.default_rng(1)
    spots = rng.uniform(0, 40, size=(41, 2))
    travel = np.hypot(*(spots[:, None] - spots).T)
    base = Instance(
        name="plain",
        places=tuple(Place(id=str(k), x_m=x, y_m=y) for k, (x, y) in enumerate(spots.tolist())),
        requests=tuple(
            Request(id=str(k), place=str(k), load=1, ready_s=8 * k, due_s=8 * k + 120)
            for k in range(1, 41)
        ),
        robots=tuple(Robot(id=name, capacity=9, end_s=900) for name in "ABCDE"),
        travel_s=travel,
        distance_m=travel,
    )
    reference = solve(base, method="insertion", max_iterations=1, time_limit=10, seed=1)
    dynamic = make_dynamic(base, reference, degree=0.5, seed=1)
    return replay_day(
        replace(dynamic, robots=dynamic.robots[:2]), method="insertion", max_iterations=1
    )


class Page(HTMLParser):
    """Elements with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the element."""
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements with this tag."""
        return [attrs for name, attrs in self.elements if name == tag]


def data_of(page: str) -> Any:
    """The block from which the script draws."""
    found = re.search(r'id="data">(.*?)</script>', page)
    assert found
    return json.loads(found[1])


def unfold(moments: list[Moment], instance: Instance) -> list[dict[str, list[list[float]]]]:
    """Trips of every robot after each moment, from what changed."""
    trips: dict[str, list[list[float]]] = {robot.id: [] for robot in instance.robots}
    states = []
    for moment in moments:
        for number, kept, new in moment.changes:
            robot = instance.robots[number].id
            trips[robot] = trips[robot][:kept] + new
        states.append(dict(trips))
    return states


def same_trips(packed: dict[str, list[list[float]]], plan: Plan, instance: Instance) -> bool:
    """Whether unfolded trips are those of a plan, to a tenth of a second."""
    by_robot = plan.trips_by_robot()
    assert {robot for robot, trips in packed.items() if trips} == by_robot.keys()
    for robot, trips in by_robot.items():
        for (depart_s, _, return_s, _, *stops), trip in zip(packed[robot], trips, strict=True):
            numbers = [int(row) for row in stops[::3]]
            assert [instance.requests[max(n, -1 - n)].id for n in numbers] == [
                stop.request for stop in trip.stops
            ]
            assert [n < 0 for n in numbers] == [stop.is_pickup for stop in trip.stops]
            times = [depart_s, return_s, *stops[2::3]]
            assert times == pytest.approx(
                [trip.depart_s, trip.return_s, *(stop.start_s for stop in trip.stops)], abs=0.051
            )
    return True


def test_moments_of_a_short_day(short: Replay):
    """Each moment holds its answers, and only the trips behind those that stay."""
    first = [0.0, 30.0, 50.0, 0.0, 0, 0.0, 10.0, 1, 15.0, 25.0]
    assert [moment.document() for moment in moments_of(short)] == [
        [0.0, [(0, "accepted")], [(0, 0, [[0.0, 15.0, 25.0, 0.0, 0, 0.0, 10.0]])]],
        [5.0, [(1, "accepted")], [(0, 0, [first])]],
        [6.0, [(2, "denied")], []],
        [8.0, [(3, "unservable")], []],
        [9.0, [(4, "accepted")], [(0, 1, [[65.0, 85.0, 105.0, 0.0, 4, 65.0, 85.0]])]],
    ]


@pytest.mark.slow
def test_moments_unfold_to_the_plan_at_every_event(hospital_day: Replay):
    """As a dispatcher that hears the same events, and in the end as the day that was driven."""
    instance, moments = hospital_day.instance, moments_of(hospital_day)
    states = unfold(moments, instance)
    assert same_trips(states[-1], hospital_day.plan, instance)
    dispatcher = Dispatcher(instance, hospital_day.first_plan, hospital_day.policy)
    assert same_trips(states[0], dispatcher.plan(), instance)
    times = [round(record.event.now_s, 1) for record in hospital_day.records]
    num_compared = 0
    for record, now_s, next_s in zip(hospital_day.records, times, [*times[1:], 1e9], strict=True):
        assert dispatcher.handle(record.event).decisions == record.decisions
        if next_s > now_s:  # nothing else happens at this moment
            last = max(k for k, moment in enumerate(moments) if moment.time_s <= now_s)
            num_compared += same_trips(states[last], dispatcher.plan(), instance)
    assert num_compared > 100


@pytest.mark.slow
def test_ways_are_timed(hospital_day: Replay):
    """Ways start at 0, end at 1000, never go back, and cover every leg that is ever planned."""
    instance = hospital_day.instance
    assert instance.site is not None
    ways = timed_ways(instance, legs_of(instance, moments_of(hospital_day)))
    points = list(instance.site.points)
    for (start, end), way in ways.items():
        passed, shares = [points[k] for k in way[::2]], way[1::2]
        ends = instance.places[start].id, instance.places[end].id
        assert tuple(passed) == instance.site.path(*ends)
        assert shares[0] == 0
        assert shares == sorted(shares)
        assert shares[-1] == (1000 if start != end else 0)


def test_feed_of_a_short_day(short: Replay):
    """Verdict, rule, robot, start and money of each answer, and its sentence."""
    entries = feed_of(short, PLAIN)
    shown = [(e.time, e.title, e.verdict, e.rule, e.robot, e.start, e.cost) for e in entries]
    assert shown == [
        ("5", "a", "accepted", "D1", "R1", "25", "+20.00"),  # 20 m more
        ("6", "b", "denied", "D6", "", "", "+1,000.00"),
        ("8", "c", "too late", "D6", "", "", "+150.00"),
        ("9", "w", "accepted", "D1", "R1", "85", "+40.00"),
    ]
    assert entries[0].sentence == (
        "Request 'a' joins robot 'R1': service starts at 25 s, for 20 (D1)."
    )
    assert entries[1].remedies[0] == "a window that closes 45 later"


def test_feed_holds_every_answer_and_rounds_its_sentence(hospital_day: Replay):
    """One entry an answer beside those of better routes; no number with more than two decimals."""
    entries = [e for e in feed_of(hospital_day, Clock(start_h=6)) if e.row >= 0]
    assert [e.title for e in entries] == [d.request for d in hospital_day.decisions()]
    for entry, decision in zip(entries, hospital_day.decisions(), strict=True):
        assert decision.explain()[:30] == entry.sentence[:30]
        assert not re.search(r"\d\.\d{3}", entry.sentence)
        assert len(entry.offers) == len(decision.alternatives)


def test_denials_of_a_short_day(short: Replay):
    """Each with its reason and what alone would have helped."""
    denied, too_late = denials_of(short, PLAIN)
    assert (denied.request, denied.time, denied.lost) == ("b", "6", "1,000.00")
    assert denied.reasons == ("No robot had a place left for it in time.",)
    assert denied.remedies == (
        "a window that closes 45 later",
        "2 more free slots on robot 'R1'",
        "1 more spare robot",
    )
    assert (too_late.request, too_late.remedies) == ("c", ())
    assert too_late.reasons == ("Came too late: no robot at the depot could have been in time.",)


def test_denials_tell_how_it_came(hospital_day: Replay):
    """Those who waited and those who gave way say so; each unserved request stands there once."""
    denials = denials_of(hospital_day, Clock(start_h=6))
    assert sorted(d.request for d in denials) == sorted(hospital_day.plan.denied)
    waited = {d.request for d in hospital_day.decisions() if d.status is Status.PENDING}
    ejected = {id_ for d in hospital_day.decisions() for id_ in d.ejected}
    texts = {d.request: " ".join(d.reasons) for d in denials}
    assert {id_ for id_, text in texts.items() if "Waited" in text} <= waited
    assert {id_ for id_, text in texts.items() if "Gave way" in text} == ejected & texts.keys()
    assert ejected & texts.keys()


def test_a_denial_of_the_first_plan_is_told():
    """It never was an event of the day."""
    plan = Plan(instance="short day", trips=(), denied=("k",))
    day = replay_day(replace(SHORT, requests=SHORT.requests[:1]), first_plan=plan)
    (denial,) = denials_of(day, PLAIN)
    assert (denial.time, denial.request, denial.lost) == ("in advance", "k", "150.00")


def test_answer_times_fall_into_bins():
    """Three answers in the bin from 1 ms, one in the last; median 1.05 of 1, 1, 1.1, 100 ms."""
    histogram = histogram_of((0.001, 0.001, 0.0011, 0.1))
    assert histogram is not None
    assert [label.split()[0] for *_, label in histogram.bars] == ["3", "1"]
    assert [height for _, _, height, _ in histogram.bars] == [100, 33.3]
    # 8 bins a decade: 16 up to 100 ms, and its own; 1.05 ms is 8 log10(1.05) = 0.17 bins in.
    assert histogram.median_ms == pytest.approx(1.05)
    assert histogram.median_at == pytest.approx(100 * 0.1695 / 17, abs=0.01)
    assert [label for _, label in histogram.ticks][:3] == ["1 ms", "2 ms", "5 ms"]
    assert histogram_of(()) is None


def test_service_levels_and_first_figures(short: Replay):
    """Stat b and routine c are not served; urgent a, routine k and w are."""
    levels = [
        (level.priority, level.num_requests, level.num_on_time, level.num_late, level.num_denied)
        for level in levels_of(short.instance, short.plan)
    ]
    assert levels == [("stat", 1, 0, 0, 1), ("urgent", 1, 1, 0, 0), ("routine", 3, 2, 0, 1)]
    first = first_kpis(short)
    assert (first.num_requests, first.num_denied, first.distance_m) == (1, 0, 20)


@pytest.mark.slow
def test_page_is_one_file_that_loads_nothing(page: str):
    """No links, sources or imports; below three megabytes for 300 requests."""
    for tag, attrs in Page(page).elements:
        assert tag not in {"link", "img", "iframe", "object", "base"}
        assert not {"src", "href", "action", "xlink:href"} & attrs.keys()
        assert not [name for name in attrs if name.startswith("on")]
    assert "@import" not in page
    assert set(re.findall(r"https?://[^\"')\s]+", page)) == {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r"url\(([^)]*)\)", page)) == {"#arrow"}
    assert len(page.encode()) < 3_000_000


def test_page_names_its_controls(page: str):
    """Ids are unique, every control has a label, every drawing a description."""
    elements = Page(page)
    ids = Counter(attrs["id"] for _, attrs in elements.elements if "id" in attrs)
    assert max(ids.values()) == 1
    labelled = [c for c in elements.all("input") if "aria-label" in c]
    inside = len([label for label in elements.all("label") if "for" not in label])
    assert len(elements.all("select") + elements.all("input")) == inside + len(labelled)
    for svg in elements.all("svg"):
        assert svg.get("aria-label") or svg.get("aria-hidden") == "true"
    assert all(button["type"] == "button" for button in elements.all("button"))


def test_page_holds_answers_denials_and_rules(page: str, hospital_day: Replay):
    """One entry an answer, one row a denial, and the meaning of each rule."""
    elements = Page(page)
    entries = [li for li in elements.all("li") if (li.get("class") or "").startswith("entry")]
    verdicts = Counter(li["data-verdict"] for li in entries)
    counts = Counter(str(decision.status) for decision in hospital_day.decisions())
    assert verdicts["accepted"] == counts["accepted"]
    assert verdicts["waiting"] == counts["pending"] > 0
    assert verdicts["denied"] == counts["denied"] > 0
    jumps = [b for b in elements.all("button") if b.get("class") == "jump"]
    assert len(jumps) == len(hospital_day.plan.denied)
    assert {a["title"][:5] for a in elements.all("abbr") if a["title"]} >= {"Inser", "Eject"}


def test_hostile_names_stay_text():
    """Names full of markup arrive as names: no element or attribute of theirs exists."""
    requests = tuple(
        replace(r, id=f"{HOSTILE}{r.id}", place=HOSTILE if r.place == "near" else r.place)
        for r in SHORT.requests
    )
    hostile = replace(
        SHORT, name=HOSTILE, requests=requests,
        places=(SHORT.places[0], replace(SHORT.places[1], id=HOSTILE), SHORT.places[2]),
        robots=(replace(SHORT.robots[0], id=f"{HOSTILE}R"),),
    )  # fmt: skip
    text = render_live_report(replay_day(hostile, method="insertion", max_iterations=1))
    elements = Page(text)
    assert len(elements.all("script")) == 2
    assert elements.all("img") == []
    assert data_of(text)["requests"][0]["id"] == f"{HOSTILE}k"


def test_days_without_events_or_requests():
    """Nothing was asked: the page says so, with the plan made in advance or without any."""
    known = replace(SHORT, requests=SHORT.requests[:1])
    text = render_live_report(replay_day(known, first_plan=FIRST))
    assert "No request came during the day" in text
    assert "Nothing was denied." in text
    assert len(data_of(text)["moments"]) == 1
    nothing = replace(SHORT, requests=())
    text = render_live_report(replay_day(nothing, first_plan=Plan(instance="short day", trips=())))
    assert data_of(text)["moments"] == [[0.0, [], []]]
    assert "Not needed: R1" in text


def test_an_interrupted_day_says_so(short: Replay):
    """With the moment of its last event."""
    cut = replace(short, records=short.records[:4], is_complete=False)
    moment = PLAIN.moment(cut.records[-1].event.now_s)
    assert f"The day was interrupted at {moment}" in render_live_report(cut)
    assert "interrupted" not in render_live_report(short)


def test_page_is_written_whole_or_not_at_all(short: Replay, tmp_path: Path):
    """No folder: an error and no file; else exactly one file."""
    with pytest.raises(OSError, match="missing"):
        write_live_report(short, tmp_path / "missing" / "a.html")
    write_live_report(short, tmp_path / "a.html")
    assert [file.name for file in tmp_path.iterdir()] == ["a.html"]
    assert (tmp_path / "a.html").read_text("utf-8") == render_live_report(short)


def test_a_plain_day_is_drawn_by_its_coordinates(plain_day: Replay):
    """One drawing; each way is the straight line between two places."""
    text = render_live_report(plain_day)
    assert len(Page(text).all("figure")) == 1
    ways = data_of(text)["ways"]
    assert all(pair.split() == [str(way[0]), str(way[2])] for pair, way in ways.items())
