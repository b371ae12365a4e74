"""The page of a dispatched day: it plays the day, and shows every answer with its reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wardwise.fleet.dispatch import Status
from wardwise.io.files import write_text
from wardwise.report.answers import first_kpis, histogram_of, levels_of
from wardwise.report.clock import Clock
from wardwise.report.energy import battery_document
from wardwise.report.feed import IMPROVED, RULES, VERDICTS, denials_of, feed_of
from wardwise.report.floormap import charger_points, timed_ways
from wardwise.report.html import environment, table_facts
from wardwise.report.pharmacy import build_pharmacy
from wardwise.report.service import PRIORITIES, service_line
from wardwise.report.timeline import legs_of, moments_of, stop_places
from wardwise.report.view import build_view

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from wardwise.fleet.problem import Instance
    from wardwise.fleet.replay import Replay
    from wardwise.hospital import HospitalDay
    from wardwise.report.timeline import Moment
    from wardwise.report.view import View


def write_live_report(
    replay: Replay,
    path: str | os.PathLike[str],
    *,
    start_h: float | None = None,
    hospital: HospitalDay | None = None,
) -> None:
    """Write the page of a dispatched day; an existing file is replaced only by a whole new one.

    Parameters
    ----------
    hospital
        The same day with its dispensing machine, of whose orders some requests come.
    start_h
        Hour of the day at second 0; `None` writes times since the start.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    write_text(path, render_live_report(replay, start_h=start_h, hospital=hospital))


def render_live_report(
    replay: Replay, *, start_h: float | None = None, hospital: HospitalDay | None = None
) -> str:
    """Text of the page that `write_live_report` writes."""
    instance = replay.instance
    clock = Clock(start_h=start_h, is_plain=instance.site is None)
    view = build_view(instance, replay.plan, replay.report, clock)
    moments = moments_of(replay)
    entries, denials = feed_of(replay, clock), denials_of(replay, clock)
    pharmacy = None
    if hospital is not None:
        pharmacy = build_pharmacy(hospital, instance, view.rows, view.axis, clock)
    driven = {robot for moment in moments for robot, _, _ in moment.changes}
    robots = [robot.id for robot in instance.robots]
    num_waiting = sum(decision.status is Status.PENDING for decision in replay.decisions())
    last_s = replay.records[-1].event.now_s if replay.records else 0.0
    return (
        environment()
        .get_template("live.html.j2")
        .render(
            instance=instance,
            report=replay.report,
            view=view,
            lateness=clock.span(view.service.expected_lateness_s) if view.service else "",
            headline=service_line(view.service) if view.service else "",
            strips={lane.robot: lane.strip for lane in view.lanes},
            first=first_kpis(replay),
            entries=entries,
            marks=[(view.axis.at(e.time_s), e.verdict) for e in entries if e.row >= 0],
            denials=denials,
            histogram=histogram_of(replay.latency_s),
            levels=levels_of(instance, replay.plan),
            used=[(k, robots[k]) for k in sorted(driven)],
            unused=[name for k, name in enumerate(robots) if k not in driven],
            num_dynamic=sum(request.release_s > 0 for request in instance.requests),
            num_waiting=num_waiting,
            num_refused=num_waiting + len(denials),
            broken_off_at=None if replay.is_complete else clock.moment(last_s),
            rules={str(rule): meaning for rule, meaning in RULES.items()},
            verdicts=[*VERDICTS.values(), IMPROVED],
            priorities=list(PRIORITIES.values()),
            pharmacy=pharmacy,
            data=_data(replay, view, moments, clock, pharmacy.notes if pharmacy else {}),
        )
    )


def _data(
    replay: Replay, view: View, moments: list[Moment], clock: Clock, notes: Mapping[str, str]
) -> dict[str, Any]:
    """What the page's script plays."""
    instance = replay.instance
    ways = timed_ways(instance, legs_of(instance, moments))
    driven = replay.plan.trips_by_robot()
    return {
        "startH": clock.start_h,
        "isPlain": clock.is_plain,
        "endS": view.axis.end_s,
        "reloadS": instance.reload_s,
        "hasSite": instance.site is not None,
        "points": view.floor_map.points,
        "robots": [[robot.id, robot.end_s] for robot in instance.robots],
        # What is past never changes, so the whole day's levels are those of every moment before.
        "batteries": [
            battery_document(instance, robot.id, driven.get(robot.id, ()))
            for robot in instance.robots
        ],
        "chargers": charger_points(instance),
        "requests": _requests(instance, view, notes),
        "ways": {f"{a} {b}": way for (a, b), way in ways.items()},
        "moments": [moment.document() for moment in moments],
        "rows": table_facts(view),
    }


def _requests(instance: Instance, view: View, notes: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the script says and draws of each request, whatever the time."""
    return [
        {
            "id": request.id,
            "place": row.place,
            "transport": f"{row.kind}, {row.load} slots, {row.priority}",
            "window": row.window,
            "prescription": notes.get(request.id, ""),
            "releaseS": request.release_s,
            "dueS": request.due_s,
            "serviceS": request.service_s,
            "ends": stop_places(instance, row.index),
        }
        for request, row in zip(instance.requests, view.rows, strict=True)
    ]
