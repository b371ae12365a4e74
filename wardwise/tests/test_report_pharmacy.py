"""What the page of a day shows of the pharmacy."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from wardwise.fleet.replay import Replay, replay_day
from wardwise.generate import generate_hospital
from wardwise.hospital import (
    HospitalDay,
    dispense,
    draw_prescriptions,
    live_days,
    with_deliveries,
    without_medicine,
)
from wardwise.report.clock import Clock
from wardwise.report.live import render_live_report
from wardwise.report.pharmacy import build_pharmacy, tasks_of_day
from wardwise.report.view import Axis, build_view

CLOCK = Clock(start_h=6)
SVG = "{http://www.w3.org/2000/svg}"
COUNT = "return document.querySelectorAll(arguments[0]).length"
SET_TIME = """
const slider = document.getElementById("time");
slider.value = arguments[0];
slider.dispatchEvent(new Event("input"));
"""


@pytest.fixture(scope="module")
def both() -> tuple[Replay, HospitalDay]:
    """Four dispatched hours of a small hospital, whose medicine comes from the machine."""
    hospital = without_medicine(
        generate_hospital(
            num_floors=3, num_wards=12, num_robots=4, hours=4, dynamic=True, transfers=True, seed=2
        )
    )
    dispensing = dispense(draw_prescriptions(hospital, seed=2), seed=2, replications=50)
    instance, deliveries = with_deliveries(hospital, dispensing, is_dynamic=True)
    replay = replay_day(instance, method="insertion", max_iterations=1)
    return replay, live_days(
        dispensing, replay.instance, deliveries, replay.plan, replay.report, quantile=0.9,
        num_days=3, seed=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(both: tuple[Replay, HospitalDay]) -> str:
    replay, hospital = both
    return render_live_report(replay, start_h=6, hospital=hospital)


def view_of(replay: Replay, hospital: HospitalDay):
    """The pharmacy's part of the page."""
    rows = build_view(replay.instance, replay.plan, replay.report, CLOCK).rows
    axis = Axis(replay.instance, replay.plan)
    return build_pharmacy(hospital, replay.instance, rows, axis, CLOCK)


def test_dispatched_day_is_sound(both: tuple[Replay, HospitalDay]):
    """The dispatcher's plan can be driven with true completions, and the checker agrees."""
    _, hospital = both
    assert hospital.is_sound
    assert hospital.figures().num_delivered > 20


def test_bars_of_the_machine_follow_each_other(both: tuple[Replay, HospitalDay]):
    """Of each lived day: one thing at a time, and an order is complete with its last bin."""
    _, hospital = both
    ids = [order.id for order in hospital.dispensing.day.orders]
    for k in range(3):
        tasks = tasks_of_day(hospital, k)
        for task in tasks:
            assert task.arm_s[1] <= task.sort_s[0] < task.sort_s[1]
        for before, after in pairwise(tasks):
            assert before.arm_s[1] <= after.arm_s[0] + 1e-9
            assert before.sort_s[1] <= after.sort_s[0] + 1e-9
        done = dict.fromkeys(ids, 0.0)
        for task in tasks:
            done[task.order] = max(done[task.order], task.sort_s[1])
        assert list(done.values()) == pytest.approx(hospital.run.completed_s[k].tolist())


def test_way_shows_one_prescription_among_all_else(both: tuple[Replay, HospitalDay]):
    """Bright bars: its bins at arm and pharmacist, its two stops; moments as they were."""
    replay, hospital = both
    view = view_of(replay, hospital)
    of = {d.order.id: d for d in hospital.deliveries}
    delivery = of[view.order]
    (brought,) = (b for b in hospital.days[0].brought if b.order == view.order)
    root = ET.fromstring(view.drawing)  # noqa: S314, our own text
    bright = root.findall(f"{SVG}rect[@class='this']")
    assert len(bright) == 2 * len(delivery.order.lines) + 2
    moments = (
        delivery.order.release_s, delivery.opens_s, brought.completed_s, brought.picked_s,
        brought.bedside_s,
    )  # fmt: skip
    assert list(moments) == sorted(moments)
    assert [s.time for s in view.steps] == [CLOCK.moment(t, with_seconds=True) for t in moments]
    # The thread starts at the writing and ends at the bedside, 90 s from either edge.
    numbers = [
        float(n) for n in re.findall(r"[\d.]+", root.find(f"{SVG}path[@class='thread']").get("d"))
    ]
    lanes = root.findall(f"{SVG}rect[@class='lane']")
    left, width = float(lanes[0].get("x")), float(lanes[0].get("width"))
    span_s = brought.bedside_s - delivery.order.release_s + 180
    assert numbers[0] == pytest.approx(left + width * 90 / span_s, abs=0.1)
    assert max(numbers) == pytest.approx(left + width * (1 - 90 / span_s), abs=0.1)


@pytest.mark.slow
def test_page_without_pharmacy_has_no_trace_of_it(both: tuple[Replay, HospitalDay], page: str):
    """The section, the lanes and the legend come with the machine alone."""
    replay, _ = both
    bare = render_live_report(replay, start_h=6)
    for mark in ('class="card pharmacy"', 'class="lane machine"', "swatch sorting"):
        assert mark in page
        assert mark not in bare


def test_table_holds_the_figures_of_each_class(both: tuple[Replay, HospitalDay]):
    """Numbers as `HospitalDay.figures` gives them; classes without deliveries are left out."""
    replay, hospital = both
    view = view_of(replay, hospital)
    whole = view.classes[0]
    assert whole.name == "all"
    assert whole.cells[0] == f"{hospital.figures().num_delivered}"
    assert whole.cells[1] == f"{hospital.figures().mean_s / 60:.1f} min"
    assert sum(int(row.cells[0]) for row in view.classes[1:]) == int(whole.cells[0])
    assert len(view.notes) == len(hospital.deliveries)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_sideways_and_nothing_cut(page: str, open_page: Any, width: int):
    """Light and dark, with the prescription shown in the schedule; names of lanes are whole."""
    browser = open_page(page, width)
    run = browser.execute_script
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        run("document.getElementById('show-way').click()")
        assert run("return document.documentElement.scrollWidth") <= width
        assert run(
            "return [...document.querySelectorAll('.lane.machine .name')]"
            ".every((node) => node.scrollWidth <= node.clientWidth)"
        )
        assert run(
            "const box = document.querySelector('.journey').getBoundingClientRect();"
            "return [...document.querySelectorAll('.journey text')].every((node) => {"
            "const b = node.getBoundingClientRect();"
            "return b.left >= box.left && b.right <= box.right && b.bottom <= box.bottom; })"
        )
    assert browser.get_log("browser") == []


@pytest.mark.slow
def test_machine_shows_what_is_known(both: tuple[Replay, HospitalDay], page: str, open_page: Any):
    """At any time the orders whose round has opened, once in each lane."""
    _, hospital = both
    opens_s = hospital.dispensing.opens_s()
    browser = open_page(page, 1440)
    for now_s in (0.0, 1000.5, 5000.5, 12_000.5):
        browser.execute_script(SET_TIME, now_s)
        known = sum(time_s <= now_s for time_s in opens_s.values())
        shown = browser.execute_script(COUNT, ".lane.machine [data-known]:not([hidden])")
        assert shown == 2 * known


@pytest.mark.slow
def test_choosing_an_order_shows_its_delivery(
    both: tuple[Replay, HospitalDay], page: str, open_page: Any
):
    """A bar of the machine leads to the robot's stops and to when it was written."""
    replay, hospital = both
    view = view_of(replay, hospital)
    browser = open_page(page, 1440)
    run = browser.execute_script
    run("document.getElementById('show-way').click()")
    delivery = next(d for d in hospital.deliveries if d.order.id == view.order)
    facts = run("return document.getElementById('facts').textContent")
    assert view.order in facts
    assert f"written {CLOCK.moment(delivery.order.release_s)}" in facts
    assert run(COUNT, ".lane.machine .stop.chosen") == 2
    assert run(COUNT, ".lane[data-robot] .stop.chosen") == 2
    run("document.querySelector('.lane.machine .stop:not([hidden])').click()")
    first = run("return document.querySelector('.lane.machine .stop.chosen').title")
    assert first.split(", ")[1] in run("return document.getElementById('facts').textContent")
