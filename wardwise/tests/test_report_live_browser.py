"""The page of a live day in a browser, as a person would use it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from wardwise.fleet.dispatch import Dispatcher, Policy, Status
from wardwise.fleet.replay import Replay, certify_day, known_part, replay_day
from wardwise.fleet.solvers import solve
from wardwise.generate import generate_hospital
from wardwise.report.clock import Clock
from wardwise.report.energy import level_of
from wardwise.report.live import render_live_report

pytestmark = pytest.mark.slow

SET_TIME = """
const slider = document.getElementById("time");
slider.value = arguments[0];
slider.dispatchEvent(new Event("input"));
"""
COUNT = "return document.querySelectorAll(arguments[0]).length"
TEXT = "return document.querySelector(arguments[0]).textContent"
# Counters that the page shows, and what the dispatcher calls them.
COUNTERS = {
    "known": ("num_revealed",),
    "served": ("num_served",),
    "open": ("num_open",),
    "waiting": ("num_pending",),
    "denied": ("num_denied", "num_unservable"),
    "robots": ("num_robots",),
    "spares": ("num_spares",),
}


@pytest.fixture(scope="module")
def day() -> Replay:
    """Three hours with too few robots."""
    hospital = generate_hospital(
        num_floors=3, num_wards=12, num_robots=2, hours=3, dynamic=True, transfers=True, seed=2
    )
    policy = Policy(may_eject=True, may_hold=True)
    return replay_day(hospital, policy=policy, method="insertion", max_iterations=1)


@pytest.fixture(scope="module")
def page(day: Replay) -> str:
    return render_live_report(day, start_h=6)


@pytest.fixture(scope="module")
def electric() -> Replay:
    """The same hours with batteries that are half empty, two slots at the dock and a promise."""
    hospital = generate_hospital(
        num_floors=3, num_wards=12, num_robots=3, hours=3, dynamic=True, transfers=True,
        batteries=True, late_share=0.05, seed=2,
    )  # fmt: skip
    bare = replace(
        known_part(hospital),
        robots=tuple(replace(robot, battery=None) for robot in hospital.robots),
        promise=None,
    )
    first = solve(bare, method="insertion", objective="cost", max_iterations=1)
    halved = (
        replace(robot, battery=replace(robot.battery, start_wh=480.0))
        for robot in hospital.robots
        if robot.battery is not None
    )
    day = replay_day(replace(hospital, robots=tuple(halved)), first_plan=first)
    return certify_day(day)


def quiet_moments(day: Replay) -> list[float]:
    """Some moments at which nothing happens, between two events."""
    times = sorted({record.event.now_s for record in day.records})
    gaps = [(a + b) / 2 for a, b in pairwise(times) if b - a > 2]
    return gaps[:: max(1, len(gaps) // 6)]


def dispatcher_at(day: Replay, now_s: float) -> Dispatcher:
    """The day as it stood at a moment."""
    dispatcher = Dispatcher(day.instance, day.first_plan, day.policy)
    for record in day.records:
        if record.event.now_s <= now_s:
            dispatcher.handle(record.event)
    dispatcher.advance(now_s)
    return dispatcher


@pytest.mark.parametrize("width", [390, 1440])
def test_no_error_and_nothing_sideways(page: str, open_page: Any, width: int):
    """At every moment, light and dark, with an answer opened and a robot chosen."""
    browser = open_page(page, width)
    run = browser.execute_script
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        for share in (0, 0.3, 1):
            run(SET_TIME.replace("arguments[0]", "arguments[0] * slider.max"), share)
            assert run("return document.documentElement.scrollWidth") <= width
    run("document.querySelector('.entry.denied button').click()")
    run("document.querySelector('.lane button.name').click()")
    assert run("return document.documentElement.scrollWidth") <= width
    assert run("return document.querySelector('.player').getBoundingClientRect().height") < 170
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("kind", ["plain", "empty", "nothing"])
def test_other_days_run_without_error(day: Replay, open_page: Any, kind: str):
    """Without a building, without events, and without any request."""
    instance = day.instance
    if kind == "plain":
        instance = replace(instance, site=None)
    elif kind == "empty":
        instance = replace(
            instance, requests=tuple(r for r in instance.requests if not r.release_s)
        )
    else:
        instance = replace(instance, requests=())
    text = render_live_report(replay_day(instance, method="insertion", max_iterations=1))
    browser = open_page(text, 1440)
    browser.execute_script(SET_TIME.replace("arguments[0]", "0.5 * slider.max"))
    assert browser.get_log("browser") == []
    num_known = browser.execute_script(TEXT, "#count-known")
    assert (int(num_known) > 0) == (kind != "nothing")


def test_counters_are_those_of_the_dispatcher(day: Replay, page: str, open_page: Any):
    """At moments all over the day, and they add up."""
    browser = open_page(page, 1440)
    for now_s in quiet_moments(day):
        browser.execute_script(SET_TIME, now_s)
        outcome = dispatcher_at(day, now_s).outcome()
        for name, fields in COUNTERS.items():
            shown = int(browser.execute_script(TEXT, f"#count-{name}"))
            assert shown == sum(getattr(outcome, field) for field in fields), (name, now_s)
        assert browser.execute_script(TEXT, "#clock") == Clock(start_h=6).moment(now_s)


def test_chart_shows_what_is_known_committed_and_planned(day: Replay, page: str, open_page: Any):
    """A block a stop, light until the robot leaves for it; a mark for each unplaced request."""
    browser = open_page(page, 1440)
    instance = day.instance
    for now_s in quiet_moments(day):
        browser.execute_script(SET_TIME, now_s)
        dispatcher = dispatcher_at(day, now_s)
        num_stops = num_left = num_out = 0
        for trip in dispatcher.plan().trips:
            num_out += trip.depart_s <= now_s < trip.return_s
            here = 0
            for stop in trip.stops:
                request = instance.request_by_id[stop.request]
                place = instance.place_index[request.stop_place(is_pickup=stop.is_pickup)]
                num_left += stop.arrive_s - instance.travel_s[here, place] <= now_s
                num_stops += 1
                here = place
        outcome = dispatcher.outcome()
        run = browser.execute_script
        lanes = ".lane[data-robot] .stop"
        assert run(COUNT, lanes) == num_stops
        assert run(COUNT, f"{lanes}:not(.ahead)") == num_left
        assert run(COUNT, ".lane.out .mark-waiting") == outcome.num_pending
        refused = outcome.num_denied + outcome.num_unservable
        assert run(COUNT, ".lane.out .mark-denied") == refused
        assert run(COUNT, ".order .robot") == num_out
        assert f"{num_out} out" in run(TEXT, "#map-note")


def test_batteries_and_promise_of_a_day(electric: Replay, open_page: Any):
    """Level beside each robot, charges up to now, who is on charge, and the line for managers."""
    text = render_live_report(electric, start_h=6)
    instance, plan = electric.instance, electric.plan
    levels = {r: level_of(instance, r, trips) for r, trips in plan.trips_by_robot().items()}
    charges = [(trip.robot, charge) for trip in plan.trips for charge in trip.charges]
    assert electric.report.is_feasible
    browser = open_page(text, 1440)
    run = browser.execute_script
    for now_s in quiet_moments(electric):
        run(SET_TIME, now_s)
        on_charge = {robot for robot, c in charges if c.start_s <= now_s < c.end_s}
        assert int(run(TEXT, "#count-charging")) == len(on_charge)
        num_begun = sum(charge.start_s <= now_s for _, charge in charges)
        assert run(COUNT, ".lane[data-robot] .charge:not(.ahead)") == num_begun
        assert run(COUNT, ".order .on-charge") == bool(on_charge)
        for robot, level in levels.items():
            assert level is not None
            times_s, whs = zip(*level.points, strict=True)
            pct = level.pct(float(np.interp(now_s, times_s, whs)))
            note = run(TEXT, f".lane[data-robot={robot}] .name small")
            assert int(note.split("\n")[1].removesuffix(" %")) == pytest.approx(pct - 0.5, abs=0.52)
            assert (robot in run(TEXT, "#charging-note")) == (robot in on_charge)
    assert plan.certificate is not None
    kept = "kept" if plan.certificate.holds else "not kept"
    assert kept in run(TEXT, "[aria-labelledby=service-title] .verdict").lower()
    assert run(TEXT, ".headline").startswith("On 20,000 random days, stat requests are late on at")
    assert browser.get_log("browser") == []
    assert run("return document.documentElement.scrollWidth") <= 1440
    narrow = open_page(text, 390)
    assert narrow.execute_script("return document.documentElement.scrollWidth") <= 390
    height = "return document.querySelector('.player').getBoundingClientRect().height"
    assert narrow.execute_script(height) < 170


def test_keys_move_the_time(page: str, open_page: Any):
    """Arrows by a minute, page keys by ten; the space bar plays and pauses."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser = open_page(page, 1440)

    def clock() -> str:
        return str(browser.execute_script(TEXT, "#clock"))

    slider = browser.find_element(By.ID, "time")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert clock() == "06:02"
    slider.send_keys(Keys.PAGE_UP, Keys.ARROW_LEFT)
    assert clock() == "06:11"
    slider.send_keys(Keys.HOME)
    assert clock() == "06:00"
    browser.execute_script("document.activeElement.blur()")
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys(" ")
    assert browser.execute_script(TEXT, "#play span") == "Pause"
    browser.execute_async_script("setTimeout(arguments[0], 800)")
    body.send_keys(" ")
    stopped = clock()
    assert stopped > "06:00"
    browser.execute_async_script("setTimeout(arguments[0], 200)")
    assert clock() == stopped
    body.send_keys(Keys.ARROW_RIGHT)
    assert clock() > stopped


def test_an_answer_leads_to_its_moment(day: Replay, page: str, open_page: Any):
    """Opening one moves the time, tells about it and marks its stop; filters leave what fits."""
    browser = open_page(page, 1440)
    run = browser.execute_script
    decisions = day.decisions()
    accepted = next(d for d in reversed(decisions) if d.status is Status.ACCEPTED)
    entry = run(
        "return [...document.querySelectorAll('.entry.accepted')].findLast("
        "(node) => node.querySelector('b').textContent === arguments[0])",
        accepted.request,
    )
    run("arguments[0].querySelector('button').click()", entry)
    assert run(TEXT, "#clock") == Clock(start_h=6).moment(accepted.now_s)
    assert accepted.request in run(TEXT, "#facts")
    assert run(COUNT, ".chart .stop.chosen") >= 1
    assert run("return arguments[0].querySelector('.why').checkVisibility()", entry)
    run(
        "const select = document.getElementById('by-verdict'); select.value = 'denied';"
        "select.dispatchEvent(new Event('input'))"
    )
    num_denied = sum(d.status is Status.DENIED for d in decisions)
    assert run(COUNT, "#feed .entry:not([hidden])") == num_denied
    assert run(TEXT, "#feed-count") == f"{num_denied} of {len(decisions)}"


def test_a_denial_leads_to_its_moment(page: str, open_page: Any):
    """The time in the table is a button; its request is marked among the unplaced."""
    browser = open_page(page, 1440)
    run = browser.execute_script
    button = run("return [...document.querySelectorAll('.jump')].pop()")
    run("arguments[0].click()", button)
    time = run("return arguments[0].textContent", button)
    assert run(TEXT, "#clock") == time
    assert run(COUNT, ".lane.out .stop.chosen") == 1
    assert "denied at" in run(TEXT, "#facts")
