"""The page of a live day in a browser, as a person would use it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from wardwise.fleet.dispatch import Dispatcher, Policy, Status
from wardwise.fleet.replay import Replay, replay_day
from wardwise.generate import generate_hospital
from wardwise.report.clock import Clock
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
