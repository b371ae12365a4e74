"""Tables of a dispensing machine as comma-separated values: orders, bins, and planned retrievals.

The first line names the columns, in any sequence; columns marked optional may be missing. Numbers
are plain decimals, dates ``YYYY-MM-DD``, times seconds from the start of the day, and an empty cell
means that nothing is known.
"""

from __future__ import annotations

import csv
import io
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from wardwise.errors import InputError, quote
from wardwise.io.files import read_text, write_text
from wardwise.io.text import LARGEST, Row, decimal
from wardwise.pharmacy.problem import Bin, Line, Order, Priority
from wardwise.pharmacy.timing import simulate

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from wardwise.pharmacy.problem import PharmacyDay
    from wardwise.pharmacy.rack import Rack

ORDER_COLUMNS = ("order_id", "line_id", "drug", "qty", "priority", "release", "due", "min_expiry")
ORDER_OPTIONAL = ("line_id", "priority", "release", "due", "min_expiry", "manual", "manual_s",
                  "destination")  # fmt: skip
BIN_COLUMNS = ("bin_id", "drug", "col", "row", "lot", "expiry", "qty")
BIN_OPTIONAL = ("lot", "expiry", "qty", "recalled")
MAX_PACKS = 1_000_000_000
QUANTILES = (0.05, 0.95)

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MARKS = {"": False, "no": False, "yes": True}


@dataclass(frozen=True)
class Record:
    """One row of a table, its cells by column name."""

    row: Row
    cells: dict[str, int]

    def text(self, column: str) -> str:
        """Cell without outer spaces, empty where there is no such column."""
        return self.row.words[self.cells[column]] if column in self.cells else ""

    def number(self, column: str, minimum: float = 0.0) -> float | None:
        """Number of a cell; None where it is empty."""
        if not self.text(column):
            return None
        return self.row.number(self.cells[column], column, minimum=minimum, maximum=LARGEST)

    def integer(self, column: str, *, minimum: int, maximum: int, default: int | None) -> int:
        """Whole number of a cell, or the default where it is empty."""
        if default is not None and not self.text(column):
            return default
        return self.row.integer(self.cells[column], column, minimum=minimum, maximum=maximum)

    def day(self, column: str) -> date | None:
        """Date of a cell; None where it is empty."""
        text = self.text(column)
        if not text:
            return None
        try:
            if _DATE.fullmatch(text):
                return date.fromisoformat(text)
        except ValueError:
            pass  # the 31st of June
        raise self.row.error(column, f"expected YYYY-MM-DD, got {quote(text)}")

    def mark(self, column: str) -> bool:
        """Yes or no; empty is no."""
        if self.text(column) not in _MARKS:
            raise self.row.error(column, f"expected yes or no, got {quote(self.text(column))}")
        return _MARKS[self.text(column)]

    def priority(self) -> Priority:
        """Priority; empty is routine."""
        text = self.text("priority") or Priority.ROUTINE
        if text not in list(Priority):
            expected = ", ".join(Priority)
            raise self.row.error("priority", f"expected one of {expected}, got {quote(text)}")
        return Priority(text)


def read_orders(path: str | os.PathLike[str]) -> tuple[Order, ...]:
    """Read orders, one line of an order a row; the rows of an order may stand anywhere.

    Raises
    ------
    InputError
        Naming line, column and accepted range; or two rows of an order that disagree on its
        priority, release, due time or destination.
    """
    rows: dict[str, list[Record]] = {}
    for record in records_of(read_text(path), path, ORDER_COLUMNS, ORDER_OPTIONAL):
        rows.setdefault(record.text("order_id"), []).append(record)
    return tuple(_order(name, records) for name, records in rows.items())


def _order(name: str, records: list[Record]) -> Order:
    first, seen = records[0], set[str]()
    lines: list[Line] = []
    for record in records:
        for column in ("priority", "release", "due", "destination"):
            if record.text(column) != first.text(column):
                problem = f"expected {quote(first.text(column))} as in line {first.row.line}"
                raise record.row.error(column, f"{problem}, got {quote(record.text(column))}")
        line_id = record.text("line_id")
        if line_id and line_id in seen:
            raise record.row.error("line_id", f"expected once an order, got {line_id!r} again")
        seen.add(line_id)
        with saying_where(record.row):
            lines.append(
                Line(
                    drug=record.text("drug"),
                    quantity=record.integer("qty", minimum=1, maximum=MAX_PACKS, default=None),
                    min_expiry=record.day("min_expiry"),
                    is_manual=record.mark("manual"),
                    manual_s=record.number("manual_s") or 0.0,
                )
            )
    with saying_where(first.row):
        return Order(
            id=name,
            lines=tuple(lines),
            priority=first.priority(),
            release_s=first.number("release") or 0.0,
            due_s=first.number("due"),
            destination=first.text("destination"),
        )


def format_orders(orders: Iterable[Order]) -> str:
    """Table of orders."""
    table = [(*ORDER_COLUMNS, "manual", "manual_s", "destination")]
    for order in orders:
        due = "" if order.due_s is None else decimal(order.due_s)
        table += [
            (
                order.id, str(number), line.drug, str(line.quantity), order.priority.value,
                decimal(order.release_s), due,
                line.min_expiry.isoformat() if line.min_expiry else "",
                "yes" if line.is_manual else "", decimal(line.manual_s) if line.manual_s else "",
                order.destination,
            )
            for number, line in enumerate(order.lines, start=1)
        ]  # fmt: skip
    return _table(table)


def read_bins(path: str | os.PathLike[str], rack: Rack) -> tuple[Bin, ...]:
    """Read the bins of a rack; columns and rows count from 0 at the lower left.

    Raises
    ------
    InputError
        Naming line, column and accepted range.
    """
    return tuple(
        bin_of(record, rack)
        for record in records_of(read_text(path), path, BIN_COLUMNS, BIN_OPTIONAL)
    )


def bin_of(record: Record, rack: Rack) -> Bin:
    """Bin of a row with the columns of `read_bins`."""
    column = record.integer("col", minimum=0, maximum=rack.num_columns - 1, default=None)
    row = record.integer("row", minimum=0, maximum=rack.num_rows - 1, default=None)
    quantity = record.integer("qty", minimum=0, maximum=MAX_PACKS, default=1_000_000)
    with saying_where(record.row):
        return Bin(
            id=record.text("bin_id"),
            drug=record.text("drug"),
            cell=row * rack.num_columns + column,
            quantity=quantity,
            lot=record.text("lot"),
            expiry=record.day("expiry"),
            is_recalled=record.mark("recalled"),
        )


def format_bins(bins: Iterable[Bin], rack: Rack) -> str:
    """Table of bins."""
    table = [(*BIN_COLUMNS, "recalled")]
    for bin_ in bins:
        row, column = divmod(bin_.cell, rack.num_columns)
        table.append(
            (
                bin_.id, bin_.drug, str(column), str(row), bin_.lot,
                bin_.expiry.isoformat() if bin_.expiry else "", str(bin_.quantity),
                "yes" if bin_.is_recalled else "",
            )
        )  # fmt: skip
    return _table(table)


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """One line of a planned sequence.

    Parameters
    ----------
    position
        From 1, in the sequence of retrieval.
    order, drug, bin
        What is fetched, and for which order.
    point
        Number of the I/O point, from 1.
    delivered_s, sorted_s
        Means of when the bin stands at the point and when the pharmacist is done with it.
    sorted_low_s, sorted_high_s
        5 % and 95 % quantiles of the latter.
    """

    position: int
    order: str
    drug: str
    bin: str
    point: int
    delivered_s: float
    sorted_s: float
    sorted_low_s: float
    sorted_high_s: float


def planned(
    day: PharmacyDay, sequence: Sequence[tuple[str, str]], *, replications: int = 200, seed: int = 0
) -> tuple[Retrieval, ...]:
    """Time a sequence of (order id, bin id) and tell it line by line.

    Raises
    ------
    ValueError
        If a bin is not in the machine, or `replications` is below 1.
    """
    if replications < 1:
        raise ValueError(f"replications: expected at least 1, got {replications}")
    known = {bin_.id: bin_ for bin_ in day.bins}
    for _, name in sequence:
        if name not in known:
            raise ValueError(f"sequence: bin {name!r} is not in the machine")
    cells = np.array([known[name].cell for _, name in sequence], dtype=np.int64)
    shape = (replications, len(cells))
    found = simulate(day.machine, cells, day.service.sample(shape, np.random.default_rng(seed)))
    low_s, high_s = np.quantile(found.sorted_s, QUANTILES, axis=0)
    delivered_s, sorted_s = found.delivered_s.mean(axis=0), found.sorted_s.mean(axis=0)
    return tuple(
        Retrieval(
            position=k + 1, order=order, drug=known[name].drug, bin=name,
            point=k % day.machine.num_points + 1, delivered_s=float(delivered_s[k]),
            sorted_s=float(sorted_s[k]), sorted_low_s=float(low_s[k]),
            sorted_high_s=float(high_s[k]),
        )
        for k, (order, name) in enumerate(sequence)
    )  # fmt: skip


def write_retrievals(retrievals: Iterable[Retrieval], path: str | os.PathLike[str]) -> None:
    """Write a planned sequence, times rounded to milliseconds.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    names = tuple(Retrieval.__dataclass_fields__)
    table: list[tuple[str, ...]] = [names]
    for item in retrievals:
        values = (getattr(item, name) for name in names)
        table.append(tuple(f"{v:.3f}" if isinstance(v, float) else str(v) for v in values))
    write_text(path, _table(table))


@contextmanager
def saying_where(row: Row) -> Iterator[None]:
    """Give refusals of the problem's own objects the line that they are about."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(row.path, str(error), line=row.line) from error


def records_of(
    text: str, path: str | os.PathLike[str], columns: Sequence[str], optional: Sequence[str]
) -> Iterator[Record]:
    """Rows of a table as records; the header is checked."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    cells: dict[str, int] | None = None
    try:
        for words in reader:
            row = Row(path=path, line=reader.line_num, words=tuple(w.strip() for w in words))
            if not any(row.words):
                continue
            if cells is None:
                cells = _header(row, columns, optional)
                continue
            row.require_words("columns", len(cells))
            yield Record(row, cells)
    except csv.Error as error:
        raise InputError(path, f"expected CSV, got: {error}", line=reader.line_num) from error


def _header(row: Row, columns: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    names = [name.lower() for name in row.words]
    for name in names:
        if name not in (*columns, *optional):
            expected = ", ".join(dict.fromkeys((*columns, *optional)))
            raise row.error("column names", f"expected {expected}, got {quote(name)}")
        if names.count(name) > 1:
            raise row.error("column names", f"expected each once, got {name} again")
    for name in columns:
        if name not in names and name not in optional:
            raise row.error("column names", f"expected a column {name}, got none")
    return {name: position for position, name in enumerate(names)}


def _table(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
