"""The page and the curve of a sized fleet."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardwise.fleet.sizing import Calls, Interval, Outcome, Sizing
from wardwise.report.curve import draw_sizing, ticks
from wardwise.report.sizing import render_sizing_report, write_sizing_report

SVG = "{http://www.w3.org/2000/svg}"


def near(mean: float) -> Interval:
    return Interval(mean=mean, low=0.9 * mean, high=1.1 * mean)


def fleet(spares: int, protection: tuple[int, int, int], cost: float, denied: float) -> Outcome:
    none = (near(0.0),) * 3
    return Outcome(
        num_robots=10 + spares,
        num_spares=spares,
        protection=protection,
        cost_owned=near(cost),
        cost_used=near(cost - 10),
        extra_cost=near(cost - 1234.5),
        denied=(near(denied), near(2 * denied), near(3 * denied)),
        unservable=none,
        lost_calls=none,
        served=near(0.9),
        late=near(0.01),
        lateness_s=near(12.0),
        distance_m=near(4321.0),
        robots_used=near(9.0),
        denied_beforehand=near(0.0),
        erlang_b=0.25,
        protected_denial=(0.125, 0.25, 0.5),
    )


@pytest.fixture
def sizing() -> Sizing:
    return Sizing(
        name="ward <b>&",
        num_days=100,
        seed=7,
        is_complete=True,
        num_planned=10,
        num_known=50.0,
        num_calls=(10.0, 15.0, 25.0),
        max_denial={},
        is_met=True,
        outcomes=(
            fleet(0, (0, 0, 0), 2000.0, 0.2),
            fleet(1, (0, 0, 0), 1234.5, 0.1),
            fleet(1, (0, 0, 1), 1300.0, 0.08),
        ),
        recommended=1,
        runner_up=2,
        calls=Calls(
            per_day=(1.0, 2.0, 3.0), away_s=60.0, window_s=600.0, loads=(0.1, 0.2, 0.3),
            protection=(0, 1, 2),
        ),
    )  # fmt: skip


def test_page_holds_recommendation_table_and_closed_forms(sizing: Sizing) -> None:
    """What a manager looks for, with every name escaped, and nothing from elsewhere."""
    page = render_sizing_report(sizing)
    for text in (
        "Fleet size: ward &lt;b&gt;&amp;",
        "Own 11 robots without protection: 10 for what is known on a median day, 1 spare.",
        "A day then costs 1,234.5 (95 % interval 1,111.0 to 1,358.0), the robots owned included",
        "10.0 % of stat, 20.0 % of urgent, 30.0 % of routine are denied",
        "Next best is 11 robots, 1 kept back from routine requests, dearer by 65.5",
        "a load of 0.60 erlangs",
        "EMSR-b would keep back 1 spare from urgent and 2 from routine requests",
    ):
        assert text in page
    assert page.count('<tr class="chosen">') == 2
    assert not re.search(r'(src|href)="', page)


def test_page_tells_what_is_not_as_asked(sizing: Sizing) -> None:
    """An interruption, or a service level kept or missed, stands in the head."""
    assert 'role="status"' not in render_sizing_report(sizing)
    for change, text in (
        ({"is_complete": False}, "Interrupted"),
        ({"max_denial": {1: 0.2}}, "Service level kept"),
        ({"max_denial": {1: 0.01}, "is_met": False}, "Service level missed"),
    ):
        assert text in render_sizing_report(replace(sizing, **change))


def test_page_is_written_whole(sizing: Sizing, tmp_path) -> None:
    """The file is the rendered page."""
    write_sizing_report(sizing, tmp_path / "size.html")
    assert (tmp_path / "size.html").read_text(encoding="utf-8") == render_sizing_report(sizing)


def test_curve_has_four_charts_with_a_line_for_each_level(sizing: Sizing) -> None:
    """Cost and three classes; two lines and three dots each, and a ring around the best."""
    root = ET.fromstring(draw_sizing(sizing))  # noqa: S314 - our own drawing
    charts = root.findall(f"{SVG}g")
    titles = [chart.find(f"{SVG}text").text for chart in charts]
    assert titles == [
        "Cost of a day, robots owned included", "Stat denied", "Urgent denied", "Routine denied",
    ]  # fmt: skip
    for chart in charts:
        assert len(chart.findall(f"{SVG}path[@class='line']")) == 2
        dots = chart.findall(f"{SVG}circle")
        assert len(dots) == 3 + 1
        (ring,) = (dot for dot in dots if dot.get("class") == "best")
        best = dots[1]
        assert (ring.get("cx"), ring.get("cy")) == (best.get("cx"), best.get("cy"))
    tip = charts[1].findall(f"{SVG}circle")[2].find(f"{SVG}title").text
    assert tip == "11 robots, 0 / 1 kept back: 8.0 % (7.2 to 8.8)"


def test_curve_of_one_fleet_that_denies_nothing(sizing: Sizing) -> None:
    """No range on any axis is no reason to fail."""
    alone = replace(
        sizing, outcomes=(fleet(2, (0, 0, 0), 0.0, 0.0),), recommended=0, runner_up=None
    )
    ET.fromstring(draw_sizing(alone))  # noqa: S314 - our own drawing
    assert "Own 12 robots" in render_sizing_report(alone)


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_ticks_enclose_the_values(one: float, other: float) -> None:
    """Equal steps of 1, 2 or 5 times a power of ten, not many of them."""
    low, high = min(one, other), max(one, other)
    if 0 < high - low < 1e-3:
        return
    marks = ticks(low, high)
    assert 2 <= len(marks) <= 8
    assert marks[0] <= low + 1e-9
    assert high <= marks[-1] + 1e-9
    steps = [b - a for a, b in pairwise(marks)]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-3)
