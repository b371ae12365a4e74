"""What the plain-text formats of the routing literature have in common.

They know one depot, one kind of robot, which makes one trip unless the format says
otherwise, and hard time windows; one unit of distance takes one unit of time.
Requests are called by their customer number as text, robots "1" to "K".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wardwise.errors import InputError
from wardwise.fleet.problem import Instance, Place, Request, Robot
from wardwise.io.files import write_text

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from wardwise.fleet.problem import Matrix

DEPOT_ID = "0"


def plain_instance(
    path: str | os.PathLike[str],
    *,
    name: str,
    places: tuple[Place, ...],
    requests: Mapping[Request, int],
    num_robots: int,
    capacity: float,
    day_s: tuple[float, float],
    distance: Matrix,
    max_trips: int | None = 1,
) -> Instance:
    """Put together an instance of the literature.

    Parameters
    ----------
    requests
        Each request with the line that a complaint about it points to.
    day_s
        When the depot opens and when all robots are back.
    distance
        Shape (P, P), used as travel time too.
    max_trips
        Trips of a robot; `None`: any number.

    Raises
    ------
    InputError
        If a customer cannot be served at all.
    """
    robots = tuple(
        Robot(id=str(k), capacity=capacity, start_s=day_s[0], end_s=day_s[1], max_trips=max_trips)
        for k in range(1, num_robots + 1)
    )
    try:
        return Instance(
            name=name,
            places=places,
            requests=tuple(requests),
            robots=robots,
            travel_s=distance,
            distance_m=distance,
        )
    except ValueError as error:
        subject, _, problem = str(error).partition(": ")
        lines = {f"request {request.id!r}": line for request, line in requests.items()}
        raise InputError(path, problem, line=lines.get(subject), field=subject) from error


def write_plain(
    instance: Instance,
    path: str | os.PathLike[str],
    text: str,
    parse: Callable[[str, str | os.PathLike[str]], Instance],
    file_format: str,
) -> None:
    """Write `text` if `parse` makes the same instance of it; nothing is written otherwise.

    Raises
    ------
    ValueError
        Naming the first field that would be lost.
    OSError
        If the file cannot be written.
    """
    try:
        copy = parse(text, path)
    except InputError as error:
        raise ValueError(f"instance: expected what {file_format} can hold: {error}") from error
    if copy != instance:
        names = ("name", "places", "robots", "requests", "stations", "reload_s", "costs", "site")
        younger = ("recharge", "randomness", "promise")
        lost = (n for n in (*names, *younger) if getattr(copy, n) != getattr(instance, n))
        field = next(lost, "travel_s, distance_m or travel_var_s2")
        raise ValueError(
            f"{field}: expected what {file_format} can hold, got more; write JSON instead"
        )
    write_text(path, text)
