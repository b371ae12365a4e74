"""Logs of driven days: exact round trips, cut-off writers, hostile lines."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.fleet.facts import Deed, DrivenDay, Fact, Ride
from wardwise.io import InputError, UnfinishedLineWarning, read_log, write_log

NAMES = st.sampled_from(["R1", "Süd 2", 'a"b', "\\"])
DEEDS = st.lists(st.sampled_from(Deed), min_size=4, max_size=4)
TIMES = st.lists(st.floats(0, 1e12), min_size=4, max_size=4).map(sorted)


@st.composite
def days(draw: st.DrawFn) -> list[DrivenDay]:
    """Days with facts and rides of a robot each."""
    found = []
    for number in sorted(draw(st.sets(st.integers(0, 10**6), max_size=3))):
        robot, place = draw(NAMES), draw(NAMES)
        request = draw(st.none() | NAMES)
        facts = tuple(
            Fact(
                now_s=at,
                robot=robot,
                deed=draw(st.sampled_from(Deed)),
                place=place,
                request=request,
            )
            for at in draw(TIMES)
        )
        come, turn, board, leave = draw(TIMES)
        ride = Ride(
            robot=robot, elevator=place, floor=0, target=-2,
            come_s=come, turn_s=turn, board_s=board, leave_s=leave,
        )  # fmt: skip
        rides = (ride,) if draw(st.booleans()) else ()
        complete = draw(st.booleans())
        unserved = (place,) if complete else ()
        seed = draw(st.none() | st.integers(0, 99))
        found.append(
            DrivenDay(
                day=number, seed=seed, facts=facts, rides=rides, unserved=unserved,
                is_complete=complete,
            )
        )  # fmt: skip
    return found


@settings(max_examples=15)
@given(days())
def test_what_is_written_reads_back_equal(tmp_path_factory, written):
    """To the last bit, days that were cut off included."""
    path = tmp_path_factory.mktemp("log") / "log"
    with write_log(path, "two wards") as take:
        for day in written:
            take(day)
    log = read_log(path)
    assert (log.instance, list(log.days())) == ("two wards", written)


def test_nothing_is_written_where_writing_fails(tmp_path):
    """The old file stays, and no draft beside it."""
    path = tmp_path / "log"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), write_log(path, "x"):
        raise KeyboardInterrupt
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("log", "old")]


HEADER = b'{"schema": "wardwise/log/1", "instance": "x"}\n'
DAY = b'{"kind": "day", "day": 3}\n'
FACT = b'{"kind": "fact", "now_s": 5, "robot": "R", "deed": "depart", "place": "a"}\n'
RIDE = (
    b'{"kind": "ride", "robot": "R", "elevator": "E", "floor": 0, "target": 1, '
    b'"come_s": 1, "turn_s": 2, "board_s": 3, "leave_s": 4}\n'
)
END = b'{"kind": "end"}\n'
BEGUN = HEADER + DAY


@pytest.mark.parametrize("size", range(0, len(FACT), 24))
def test_a_last_half_line_is_named_and_skipped(tmp_path, size):
    """Wherever the writer died: what stands before is read, the day counts as cut off."""
    path = tmp_path / "log"
    path.write_bytes(BEGUN + FACT + FACT[:size])
    if size:
        with pytest.warns(UnfinishedLineWarning, match=r"log:4: unfinished line"):
            (day,) = read_log(path).days()
    else:
        (day,) = read_log(path).days()
    assert (day.day, len(day.facts), day.is_complete) == (3, 1, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", 'expected a first line with "schema": "wardwise/log/1", got none'),
        (HEADER[:-9], 'expected a first line with "schema": "wardwise/log/1", got none'),
        (DAY, "1: schema: expected a value, got none"),
        (HEADER.replace(b"log/1", b"log/2"), "1: schema: expected 'wardwise/log/1', got"),
        (HEADER + FACT, "2: kind: expected a day to begin before, got fact"),
        (BEGUN + b"\n" + FACT, "3: column 0: expected JSON, got: EOF while parsing a value"),
        (BEGUN + FACT[:20] + FACT, "3: column 2"),
        (BEGUN + END + DAY, "4: day: expected above 3, the day before, got 3"),
        (BEGUN + END + FACT, "4: kind: expected a day to begin before, got fact"),
        (BEGUN + FACT.replace(b"5", b"-5"), "3: now_s: expected greater than or equal to 0"),
        (BEGUN + FACT.replace(b"5", b"NaN"), "3: now_s: expected a finite number, got nan"),
        (BEGUN + FACT.replace(b"5", b'"5"'), "3: now_s: expected a valid number, got '5'"),
        (BEGUN + FACT.replace(b"5", b"5,\"now_s\": 6"), "3: now_s: expected once, got it"),
        (BEGUN + FACT.replace(b"depart", b"fly"), "3: deed: expected 'depart', 'arrive'"),
        (BEGUN + FACT.replace(b"fact", b"fax"), "3: expected kind 'day', 'fact'"),
        (BEGUN + FACT.replace(b'"a"', b'" a"'), "3: place: expected printable text"),
        (BEGUN + FACT.replace(b'"a"', b'"\xff"'), "3: expected UTF-8 text, got byte 0xff"),
        (BEGUN + FACT + FACT.replace(b"5", b"4"),
         "4: now_s: expected at least 5.0, that of the robot's last fact, got 4.0"),
        (BEGUN + RIDE.replace(b"3", b"1.5"), "3: board_s: expected at least 2.0, turn_s, got"),
        (BEGUN + RIDE.replace(b"1,", b"1e99,"), "3: target: expected a valid integer"),
        (BEGUN + b'{"x": "' + b"x" * 2**20 + b'"}\n', "3: expected a line of at most 1048576"),
    ],
)  # fmt: skip
def test_lines_that_do_not_fit_are_refused(tmp_path, text, message):
    """In one line with file, line and field."""
    path = tmp_path / "log"
    path.write_bytes(text)
    with pytest.raises(InputError) as problem:
        list(read_log(path).days())
    assert str(problem.value).startswith(f"{path}:")
    assert message in str(problem.value)
    assert "\n" not in str(problem.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@settings(max_examples=100)
@given(
    line=st.sampled_from([DAY, FACT, RIDE, END]).map(json.loads),
    field=st.sampled_from(["kind", "day", "seed", "now_s", "deed", "floor", "leave_s", "unserved"]),
    value=VALUES,
)
def test_hostile_values_are_read_or_refused(tmp_path_factory, line, field, value):
    """Any JSON in any field: a day, or one `InputError` of one line, and nothing else."""
    path = tmp_path_factory.mktemp("log") / "log"
    text = json.dumps(line | {field: value}).encode() + b"\n"
    path.write_bytes(HEADER + b'{"kind": "day", "day": 0}\n' + text)
    try:
        assert len(list(read_log(path).days())) <= 2
    except InputError as problem:
        assert str(problem).startswith(f"{path}:3: ")
        assert "\n" not in str(problem)
