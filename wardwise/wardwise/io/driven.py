"""Logs of driven days: one JSON object a line, read as a stream.

The first line says what the file is and for which instance. A line of kind ``day``
begins a day, ``fact`` and ``ride`` lines are what was measured, and ``end`` closes the
day. A day without its end was cut off, and is handed on as such. Whoever writes may die
within a line: a last line that does not end is skipped, with a warning. Anything else
that does not fit is an error with its line and field.
"""

from __future__ import annotations

import json
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, RootModel

from wardwise.errors import InputError
from wardwise.fleet.facts import Deed, DrivenDay, Fact, Ride
from wardwise.io.documents import validated
from wardwise.io.files import written_at_once
from wardwise.io.schemas import Name, StrictModel
from wardwise.io.text import LARGEST

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

LOG_SCHEMA = "wardwise/log/1"
# A fact takes about 120 bytes.
MAX_LINE_BYTES = 1024 * 1024

_ENCODER = json.JSONEncoder(ensure_ascii=False)

Count = Annotated[int, Field(ge=0, le=10**15)]
Floor = Annotated[int, Field(ge=-1000, le=1000)]
Time = Annotated[float, Field(ge=0, le=LARGEST)]


class UnfinishedLineWarning(UserWarning):
    """A log's last line does not end: its writer was stopped, and the line is not read.

    If the writer still runs, read again later. Else cut the line off, or let it be.
    """


class HeaderLine(StrictModel):
    """First line: the format, and the name of the instance whose names the log uses."""

    schema_: Literal["wardwise/log/1"] = Field(alias="schema")
    instance: Name


class DayLine(StrictModel):
    """A day begins; its number is above those before."""

    kind: Literal["day"]
    day: Count
    seed: Count | None = None


class FactLine(StrictModel):
    """A robot did something, as `Fact` has it."""

    kind: Literal["fact"]
    now_s: Time
    robot: Name
    deed: Deed
    place: Name
    request: Name | None = None


class RideLine(StrictModel):
    """A robot left an elevator, as `Ride` has it."""

    kind: Literal["ride"]
    robot: Name
    elevator: Name
    floor: Floor
    target: Floor
    come_s: Time
    turn_s: Time
    board_s: Time
    leave_s: Time


class EndLine(StrictModel):
    """The day is over; requests that were accepted and never served."""

    kind: Literal["end"]
    unserved: tuple[Name, ...] = ()


class _Line(RootModel[DayLine | FactLine | RideLine | EndLine]):
    root: Annotated[DayLine | FactLine | RideLine | EndLine, Field(discriminator="kind")]


class DrivenLog:
    """A log of driven days.

    Attributes
    ----------
    path
        The file.
    instance
        Name of the instance that places, robots and requests belong to.

    Raises
    ------
    InputError
        If the file cannot be read, or its first line is not that of a log.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        first = next(_lines(self.path), None)
        if first is None:
            raise InputError(path, f'expected a first line with "schema": "{LOG_SCHEMA}", got none')
        number, text = first
        self.instance = validated(HeaderLine, text, path, number).instance

    def days(self) -> Iterator[DrivenDay]:
        """Read day after day; one day at a time is kept in memory.

        Raises
        ------
        InputError
            Naming the line and the field.

        Warns
        -----
        UnfinishedLineWarning
            If the last line does not end.
        """
        lines = _lines(self.path, warns=True)
        next(lines)
        day: _Day | None = None
        last = -1
        for number, text in lines:
            line = validated(_Line, text, self.path, number).root
            if isinstance(line, DayLine):
                if day is not None:
                    yield day.driven(is_complete=False)
                if line.day <= last:
                    problem = f"expected above {last}, the day before, got {line.day}"
                    raise InputError(self.path, problem, line=number, field="day")
                day, last = _Day(line, self.path), line.day
            elif day is None:
                problem = f"expected a day to begin before, got {line.kind}"
                raise InputError(self.path, problem, line=number, field="kind")
            elif isinstance(line, EndLine):
                yield day.driven(unserved=line.unserved)
                day = None
            else:
                day.add(line, number)
        if day is not None:
            yield day.driven(is_complete=False)


class _Day:
    """A day as it is read, each robot's time running forwards."""

    def __init__(self, line: DayLine, path: Path) -> None:
        self._line, self._path = line, path
        self._facts: list[Fact] = []
        self._rides: list[Ride] = []
        self._last_s: dict[tuple[str, str], float] = {}

    def add(self, line: FactLine | RideLine, number: int) -> None:
        fields = line.model_dump(exclude={"kind"})
        names = ("now_s",) if isinstance(line, FactLine) else _RIDE_TIMES
        self._require_rising(line, names, number)
        if isinstance(line, FactLine):
            self._facts.append(Fact(**fields))
        else:
            self._rides.append(Ride(**fields))

    def driven(self, unserved: tuple[str, ...] = (), *, is_complete: bool = True) -> DrivenDay:
        return DrivenDay(
            day=self._line.day,
            seed=self._line.seed,
            facts=tuple(self._facts),
            rides=tuple(self._rides),
            unserved=unserved,
            is_complete=is_complete,
        )

    def _require_rising(
        self, line: FactLine | RideLine, names: tuple[str, ...], number: int
    ) -> None:
        key = line.kind, line.robot
        last_s, before = self._last_s.get(key, 0.0), f"that of the robot's last {line.kind}"
        for name in names:
            value = getattr(line, name)
            if value < last_s:
                problem = f"expected at least {last_s!r}, {before}, got {value!r}"
                raise InputError(self._path, problem, line=number, field=name)
            last_s, before = value, name
        self._last_s[key] = last_s


_RIDE_TIMES = ("come_s", "turn_s", "board_s", "leave_s")


def read_log(path: str | os.PathLike[str]) -> DrivenLog:
    """Open a log of driven days; its days are read when asked for.

    Raises
    ------
    InputError
        If the file cannot be read, or its first line is not that of a log.
    """
    return DrivenLog(path)


@contextmanager
def write_log(path: str | os.PathLike[str], instance: str) -> Iterator[Callable[[DrivenDay], None]]:
    """Write a log day by day: the file is there when all are written, and not before.

    Parameters
    ----------
    instance
        Name of the instance.

    Returns
    -------
    Context manager of a function that takes the days, one after the other.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with written_at_once(path) as file:
        file.write(_text({"schema": LOG_SCHEMA, "instance": instance}))
        yield lambda day: file.writelines(map(_text, _documents(day)))


def _documents(day: DrivenDay) -> Iterator[dict[str, Any]]:
    """Lines of a day in the order of time."""
    yield {"kind": "day", "day": day.day, **({} if day.seed is None else {"seed": day.seed})}
    ended: list[tuple[float, str, Fact | Ride]] = [(f.now_s, "fact", f) for f in day.facts]
    ended += [(ride.leave_s, "ride", ride) for ride in day.rides]
    for _, kind, item in sorted(ended, key=lambda each: each[0]):
        fields = {"kind": kind, **vars(item)}
        if fields.get("request", ...) is None:
            del fields["request"]
        yield fields
    if day.is_complete:
        yield {"kind": "end", "unserved": day.unserved}


def _text(document: dict[str, Any]) -> bytes:
    return (_ENCODER.encode(document) + "\n").encode()


def _lines(path: Path, *, warns: bool = False) -> Iterator[tuple[int, str]]:
    """Finished lines of a file, numbered from 1."""
    number = 0
    try:
        with path.open("rb") as file:
            while data := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(data) > MAX_LINE_BYTES:
                    problem = f"expected a line of at most {MAX_LINE_BYTES} bytes, got more"
                    raise InputError(path, problem, line=number)
                if not data.endswith(b"\n"):
                    if warns:
                        text = f"{path}:{number}: unfinished line, not read"
                        warnings.warn(text, UnfinishedLineWarning, stacklevel=3)
                    return
                yield number, data.decode("utf-8")
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise InputError(path, f"expected a readable file, got: {reason}") from error
    except UnicodeDecodeError as error:
        problem = f"expected UTF-8 text, got byte 0x{data[error.start]:02x}"
        raise InputError(path, problem, line=number) from error
