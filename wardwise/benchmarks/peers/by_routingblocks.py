"""The example `examples/evrptw` of RoutingBlocks 0.2.1 on an electric file, judged by us.

It searches on one thread. So that it has as much CPU time as our two threads it is run
twice side by side, with two seeds, and the better plan counts. Its routes name stations
and no amounts: whether there are amounts that make a route possible, a linear programme
says; loads, coverage and distance are recomputed. Its limit holds from its first plan on, which
takes up to a minute: shorter limits run over.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wardwise.fleet.charging.program import least_end_s
from wardwise.fleet.plan import ChargeVisit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.problem import Instance

NAME = "RoutingBlocks 0.2.1, examples/evrptw"
# The second run's seed is so much higher.
NEXT_SEED = 1000
LOAD_TOLERANCE = 1e-9


class Size(NamedTuple):
    """Vehicles and distance of a plan."""

    vehicles: float
    distance: float


NONE = Size(math.inf, math.inf)


class Folders(NamedTuple):
    """Where the examples are, and where the package is installed."""

    examples: Path
    package: Path


def run(folders: Folders, path: Path, instance: Instance, seconds: float, seed: int) -> Size:
    """The better one of two runs; infinite where neither has a feasible plan."""
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / str(number) for number in (seed, seed + NEXT_SEED)]
        runs = [_start(folders, path, out, seconds, int(out.name)) for out in outs]
        # On some files it ends with an assertion of its own; that run has no plan then.
        done = [out for out, process in zip(outs, runs, strict=True) if process.wait() == 0]
        texts = [(out / f"solution-{path.stem}.json").read_text(encoding="utf-8") for out in done]
    routes = [
        [route["nodes"] for route in json.loads(text)["solution"]["routes"]] for text in texts
    ]
    return min((judge(instance, each) for each in routes), default=NONE)


def _start(
    folders: Folders, path: Path, out: Path, seconds: float, seed: int
) -> subprocess.Popen[bytes]:
    out.mkdir()
    command = [
        sys.executable, "-m", "evrptw", str(path.resolve()),
        "--config-path", "evrptw/config.json", "--output-path", str(out),
        "--seed", str(seed), "--time-limit", str(round(seconds)),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(folders.package.resolve())}
    return subprocess.Popen(
        command,
        cwd=folders.examples,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def judge(instance: Instance, routes: Sequence[Sequence[str]]) -> Size:
    """Vehicles and distance of routes of node names; infinite if they break a rule."""
    stations = {station.id for station in instance.stations}
    depot, robot = instance.places[0].id, instance.robots[0]
    driven = [[node for node in route if node != depot] for route in routes]
    driven = [route for route in driven if any(node not in stations for node in route)]
    served = Counter(node for route in driven for node in route if node not in stations)
    if served != Counter(request.id for request in instance.requests):
        return NONE
    distance = 0.0
    for route in driven:
        load = sum(instance.request_by_id[node].load for node in route if node not in stations)
        visits = [ChargeVisit(station=node) if node in stations else node for node in route]
        is_light = load <= robot.capacity * (1 + LOAD_TOLERANCE)
        if not is_light or least_end_s(instance, robot, visits) is None:
            return NONE
        places = [instance.station_by_id[node].place if node in stations else
                  instance.request_by_id[node].place for node in route]  # fmt: skip
        way = [instance.place_index[place] for place in [depot, *places, depot]]
        distance += sum(float(instance.distance_m[leg]) for leg in pairwise(way))
    return Size(len(driven), distance)
