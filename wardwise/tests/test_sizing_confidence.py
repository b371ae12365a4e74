"""What promises of a day cost: plans that keep them, the command, and its page."""

from __future__ import annotations

import json
import math
import re
import signal
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from wardwise.cli import confidence as command
from wardwise.fleet.chance import certify
from wardwise.fleet.check import check
from wardwise.fleet.problem import Instance, Place, Request, Robot
from wardwise.fleet.randomness import Promise, Randomness
from wardwise.fleet.sizing.confidence import size_for_promises, with_robots
from wardwise.generate import generate_hospital
from wardwise.io import write_json
from wardwise.report.confidence import draw_confidence, render_confidence_report

if TYPE_CHECKING:
    from wardwise.fleet.sizing.levels import Confidence

SVG = "{http://www.w3.org/2000/svg}"
FEW = {"time_limit": 600.0, "max_iterations": 10}
FEW_OPTIONS = ("--time-limit", "600", "--max-iterations", "10")

# A ward 100 s away. The first request leaves 100 s of slack; the second none, so that every
# robot is late for it on about half of the days.
TINY = Instance(
    name="tiny",
    places=(Place(id="depot"), Place(id="ward")),
    requests=(
        Request(id="wide", place="ward", due_s=200),
        Request(id="tight", place="ward", due_s=100, priority=1),
        Request(id="called", place="ward", due_s=900, release_s=300),
    ),
    robots=(Robot(id="R1", capacity=1, end_s=1000),),
    travel_s=[[0, 100], [100, 0]],  # type: ignore[arg-type]
    distance_m=[[0, 100], [100, 0]],  # type: ignore[arg-type]
)


def promise(late_share: float) -> Promise:
    return Promise(late_share=(late_share,) * 3)


@pytest.fixture(scope="module")
def hospital() -> Instance:
    """The sixteen narrowest windows of a morning, without tolerance, and a single robot."""
    drawn = generate_hospital(num_floors=3, num_wards=12, hours=2, seed=3)
    narrow = sorted(drawn.requests, key=lambda r: r.latest_s - r.earliest_s)[:16]
    requests = tuple(replace(request, tolerance_s=0.0) for request in narrow)
    return replace(
        drawn, requests=requests, robots=drawn.robots[:1], randomness=Randomness(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(hospital: Instance) -> Confidence:
    strict_first = [promise(share) for share in (0.01, 0.05, 0.1, 0.5)]
    return size_for_promises(hospital, strict_first, max_robots=5, **FEW)


def test_stricter_promises_never_cost_less(found: Confidence):
    """Lax first; all are kept, by plans that the checker accepts, and 99 % is not for nothing."""
    assert [level.name for level in found.levels] == ["mean times", "50 %", "90 %", "95 %", "99 %"]
    prices = [(level.num_robots, level.distance_m) for level in found.levels]
    assert all(lax <= strict for lax, strict in pairwise(prices))
    assert prices[0] < prices[-1]
    assert found.is_met
    assert found.is_complete
    assert found.mean.largest_late_share > 0.01
    for level in found.promised:
        assert check(found.instance, level.plan).is_feasible
        assert level.promise is not None
        assert level.largest_upper <= level.promise.late_share[0]


def test_even_odds_are_what_mean_times_give(found: Confidence):
    """On half of the days a normal time is below its mean: no more robots, hardly more metres."""
    lax = found.levels[1]
    assert lax.num_robots == found.mean.num_robots
    assert lax.distance_m <= 1.1 * found.mean.distance_m


def test_bounds_hold_on_other_days(found: Confidence):
    """Late shares on days of another seed stay below the bounds, but for three deviations."""
    for level in found.levels:
        promised = replace(found.instance, promise=level.promise)
        other = certify(promised, level.plan, seed=71).certificate
        assert other is not None
        for here, there in zip(level.certificate.requests, other.requests, strict=True):
            assert here.request == there.request
            deviation = math.sqrt(here.upper * (1 - here.upper) / other.num_scenarios)
            assert there.late_share <= here.upper + 3 * deviation


def test_the_same_seed_gives_the_same_plans(hospital: Instance):
    """Bit for bit, whatever the order in which promises are given."""
    few = {"time_limit": 600.0, "max_iterations": 3}
    promises = [promise(0.1), promise(0.05), promise(0.1)]
    one, other = (size_for_promises(hospital, each, **few) for each in (promises, promises[::-1]))
    assert one == other
    assert len(one.levels) == 3


def test_cost_in_words(found: Confidence):
    """The difference to the plan for mean times, and what share of days that one keeps."""
    *_, last = found.advice()
    more = found.levels[-1].num_robots - found.mean.num_robots
    keeps = math.floor(100 * (1 - found.mean.largest_late_share))
    assert last.startswith("99 % on time costs ")
    assert last.endswith(f" than planning for mean times (which keeps only {keeps} %).")
    assert (f"{more} more robot" in last) == (more > 0)
    lax = found.levels[1]
    kept = replace(found, levels=(replace(lax, promise=None), lax))
    (line,) = kept.advice()
    assert line == "50 % on time costs nothing more: the plan for mean times keeps it."


def test_robots_are_added_under_new_names():
    """All alike; a name that is taken is left out."""
    two = replace(TINY, robots=(*TINY.robots, replace(TINY.robots[0], id="R1-2")))
    more = with_robots(two, 4)
    assert [robot.id for robot in more.robots] == ["R1", "R1-2", "R1-3", "R1-4"]
    assert len({robot.kind for robot in more.robots}) == 1
    assert with_robots(two, 1).robots == TINY.robots


@pytest.mark.parametrize(
    ("change", "promises", "options", "message"),
    [
        (
            {"robots": (*TINY.robots, Robot(id="R2", capacity=9, end_s=1000))}, [promise(0.1)], {},
            "robots: expected all alike, so that there can be more of them; 'R2' differs from 'R1'",
        ),
        ({"requests": TINY.requests[2:]}, [promise(0.1)], {}, "requests: expected some with"),
        ({}, [], {}, "promises: expected at least one, got none"),
        ({}, [promise(0.1)], {"max_robots": 0}, "max_robots: expected at least 1, got 0"),
        ({}, [promise(1e-9)], {}, "promise: late_share: 1e-09 takes"),
    ],
)  # fmt: skip
def test_refusals_name_the_field(change, promises, options, message: str):
    """Before anything is searched."""
    with pytest.raises(ValueError, match=re.escape(message)):
        size_for_promises(replace(TINY, **change), promises, **options)


def test_a_stop_keeps_what_is_finished():
    """After the search that was the last one, or when Ctrl-C comes before there is a plan."""

    def interrupt(num_done: int, *_: object) -> None:
        if num_done == 1:
            raise KeyboardInterrupt

    for stop in ({"is_stopped": lambda: True}, {"on_progress": interrupt}):
        short = size_for_promises(TINY, [promise(0.1), promise(0.05)], **FEW, **stop)
        assert [level.name for level in short.levels] == ["mean times"]
        assert not short.is_complete


def test_command_tells_json(run, tmp_path, hospital: Instance):
    """Mean times and each promise, one of them by class; nothing else on stdout."""
    write_json(hospital, tmp_path / "hospital.json")
    asked = ("size", "hospital.json", "--confidence", "99/95/50,50", "--max-robots", "3")
    done = run(*asked, *FEW_OPTIONS, "--json", "--report", "page.html")
    assert done.code == 0
    answer = json.loads(done.out)
    assert [level["name"] for level in answer["levels"]] == ["mean times", "50 %", "99/95/50 %"]
    assert answer["levels"][2]["promise"]["late_share"] == [0.01, 0.05, 0.5]
    assert answer["max_robots"] == 3
    assert answer["written"] == {"report": "page.html"}
    assert set(answer["levels"][0]) == {
        "name", "promise", "is_kept", "num_robots", "distance_m", "largest_late_share",
        "largest_upper", "mean_late_share", "largest_return_upper", "expected_lateness_s",
        "classes", "denied",
    }  # fmt: skip
    assert len(answer["advice"]) == 2
    assert "Every promise kept" in (tmp_path / "page.html").read_text("utf-8")


def test_command_names_requests_that_stand_in_the_way(run, tmp_path):
    """No robot is punctual for the tight request, and the one called in is left out."""
    write_json(TINY, tmp_path / "tiny.json")
    done = run("size", "tiny.json", "--confidence", "95", *FEW_OPTIONS, "--report", "page.html")
    assert done.code == 1
    line = "95 % on time was not reached with up to 2 robots: 1 of 2 requests not served."
    assert line in done.out.splitlines()
    assert re.search(r"mean times +1 +200 ", done.out)
    why = "promise: request 'tight' not served"
    assert f"infeasible: 95 %: {why}" in done.err.splitlines()
    assert "left out: 1 request that comes in during the day" in done.err.splitlines()
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "Not every promise kept" in page
    assert why.replace("'", "&#39;") in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--confidence 0.95", "--confidence: expected 50 to below 100 percent on time, got '0.95'"),
        ("--confidence 95,100", "--confidence: expected 50 to below 100"),
        ("--confidence 99/95", "--confidence: expected one number or stat/urgent/routine"),
        ("--confidence 95 --days 9", "--days: expected none with --confidence"),
        ("--confidence 95 --ray local", "--ray: expected none with --confidence"),
        ("--max-robots 3", "--max-robots: expected only with --confidence"),
    ],
)
def test_command_refuses_by_name(run, options: str, message: str):
    """Exit code 2 and one line, before anything is compiled."""
    done = run("size", "small.txt", *options.split())
    assert done.code == 2
    assert done.err.startswith(f"error: {message}")
    assert len(done.err.splitlines()) == 1


def test_ctrl_c_counts_the_search_under_way(run, monkeypatch: pytest.MonkeyPatch):
    """A signal in the second of three searches: its plan is told, the third never begins."""

    def interrupted(*args, on_progress, **options):
        def tell(num_done, promise, best):
            on_progress(num_done, promise, best)
            if num_done == 1 and best is not None:
                signal.raise_signal(signal.SIGINT)

        return size_for_promises(*args, on_progress=tell, **options)

    monkeypatch.setattr(command, "size_for_promises", interrupted)
    done = run("size", "small.txt", "--confidence", "90,80", *FEW_OPTIONS, "--json")
    answer = json.loads(done.out)
    assert [level["name"] for level in answer["levels"]] == ["mean times", "80 %"]
    assert not answer["is_complete"]
    assert "stopped: the search under way counts as it is" in done.err


def test_page_and_picture(found: Confidence):
    """Four charts with a dot for each level; an open one where a promise is not kept."""
    named = replace(found, instance=replace(found.instance, name="ward <b>&"))
    last = named.levels[-1]
    plan = replace(last.plan, certificate=replace(last.certificate, holds=False))
    missed = replace(named, levels=(*named.levels[:-1], replace(last, plan=plan)))
    for result, num_open in ((named, 0), (missed, 1)):
        charts = ET.fromstring(draw_confidence(result)).findall(f"{SVG}g")  # noqa: S314 - ours
        titles = [chart.find(f"{SVG}text").text for chart in charts]
        assert titles[:2] == ["Robots", "Distance"]
        for chart in charts:
            dots = chart.findall(f"{SVG}circle")
            assert len(dots) == len(result.levels)
            assert sum(dot.get("class") == "open" for dot in dots) == num_open
    page = render_confidence_report(missed, {"99 %": "promise: late <i>"})
    assert "What punctuality costs: ward &lt;b&gt;&amp;" in page
    assert "late &lt;i&gt;" in page
    assert not re.search(r'(src|href)="', page)
