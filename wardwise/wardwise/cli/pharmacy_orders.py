"""Commands that take orders of other systems: orders, hl7-listen."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.table import Table

from wardwise.cli.common import AsJson, out, require_writable, talk
from wardwise.dispenser.intake import Intake
from wardwise.dispenser.mllp import PORT, Listener
from wardwise.dispenser.prescriptions import Prescriptions
from wardwise.dispenser.sinks import OrderList
from wardwise.errors import InputError, quote
from wardwise.io.fhir import read_requests
from wardwise.io.files import write_text
from wardwise.io.hl7 import Hl7Error, parse, read_items, split_file
from wardwise.io.pharmacy import read_pharmacy, write_pharmacy
from wardwise.io.pharmacy_tables import format_orders
from wardwise.io.prescriptions import first_midnight, order_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wardwise.io.prescriptions import Item
    from wardwise.pharmacy.problem import Order, PharmacyDay

DayStart = Annotated[
    str, typer.Option(help="Second 0, as in 2026-03-02T00:00+01:00; else midnight of the first.")
]
DayOption = Annotated[
    Path | None,
    typer.Option("--bins", help="Day with the machine's bins: drugs in none are taken by hand."),
]
ManualS = Annotated[float, typer.Option(min=0, help="Seconds of a line that is taken by hand.")]


class _Row(NamedTuple):
    """Something that did not become an order."""

    where: str
    id: str
    reason: str


class _Found(NamedTuple):
    """Orders of a file, and what became of the rest."""

    orders: tuple[Order, ...]
    parked: list[_Row]
    dropped: list[_Row]
    refused: list[_Row]
    midnight: datetime | None


def orders_command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="HL7 messages (RDE^O11), or FHIR as JSON.")
    ],
    bins: DayOption = None,
    day_start: DayStart = "",
    manual_s: ManualS = 60.0,
    output: Annotated[
        Path, typer.Option(help="Orders as CSV; .json with --bins: the whole day.")
    ] = Path("orders.csv"),
    as_json: AsJson = False,
) -> int:
    """Read the orders of FILE, HL7 or FHIR, and write them in the library's own format."""
    require_writable(output)
    if output.suffix.lower() == ".json" and bins is None:
        raise ValueError("--output: expected --bins too, as a day in JSON needs the machine")
    day = read_pharmacy(bins) if bins else None
    midnight = _midnight(day_start)
    read = _read_hl7 if _is_hl7(file) else _read_fhir
    found = read(file, midnight, day, manual_s)
    if found.orders:
        if output.suffix.lower() == ".json" and day:
            write_pharmacy(replace(day, orders=found.orders), output)
        else:
            write_text(output, format_orders(found.orders))
    _tell(file, found, output, as_json=as_json)
    return 1 if found.refused or not found.orders else 0


def hl7_listen(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = PORT,
    output: Annotated[Path, typer.Option(help="Orders as CSV, kept current.")] = Path("orders.csv"),
    journal: Annotated[
        Path | None, typer.Option(help="Journal by which it remembers after a restart.")
    ] = None,
    bins: DayOption = None,
    day_start: DayStart = "",
    manual_s: ManualS = 60.0,
    as_json: AsJson = False,
) -> int:
    """Take HL7 orders (RDE^O11 over MLLP), answer each message and keep a table, until Ctrl-C."""
    for path in (output, journal):
        require_writable(path)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    sink = OrderList()
    day = read_pharmacy(bins) if bins else None
    prescriptions = _prescriptions(sink, _midnight(day_start) or today, day, manual_s)
    intake = Intake(sink, prescriptions, journal=journal)

    def started(number: int) -> None:
        if as_json:
            told = {"host": host, "port": number, "orders": len(sink.orders)}
            print(json.dumps(told), flush=True)
        else:
            out.print(f"listening at {host}:{number}; orders go to {output}")
            talk.print("Ctrl-C stops it")

    async def listen() -> None:
        async with Listener(intake.answer) as listener:
            number = await listener.start(host, port)
            # Not before: the table may be that of a listener that runs already.
            sink.save = lambda orders: write_text(output, format_orders(orders))
            sink.save(sink.orders.values())
            started(number)
            await asyncio.Event().wait()

    try:
        asyncio.run(listen())
    except KeyboardInterrupt:
        talk.print(f"stopped: {len(sink.orders)} orders in {output}")
    finally:
        intake.close()
    return 0


def _midnight(text: str) -> datetime | None:
    """Start of the day of an option; at UTC if there is no offset."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        expected = "expected a time as 2026-03-02T00:00+01:00"
        raise ValueError(f"--day-start: {expected}, got {quote(text)}") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _is_hl7(file: Path) -> bool:
    """Whether a file begins like HL7 rather than like JSON."""
    try:
        with file.open("rb") as opened:
            start = opened.read(64).lstrip(b"\xef\xbb\xbf\r\n\t \x0b")
    except OSError as error:
        raise InputError(file, f"expected a readable file, got: {error.strerror}") from error
    if start.startswith((b"MSH", b"FHS", b"BHS")):
        return True
    if start.startswith(b"{"):
        return False
    raise InputError(file, f"expected HL7 messages or a FHIR resource, got {quote(start[:8])}")


def _prescriptions(
    sink: OrderList, midnight: datetime, day: PharmacyDay | None, manual_s: float
) -> Prescriptions:
    drugs = day.bins_of.keys() if day else None
    return Prescriptions(sink, midnight, machine_drugs=drugs, manual_s=manual_s)


def _read_hl7(
    file: Path, midnight: datetime | None, day: PharmacyDay | None, manual_s: float
) -> _Found:
    """Orders as they stand after all messages of a file."""
    messages: list[tuple[int, str, tuple[Item, ...]]] = []
    refused: dict[int, _Row] = {}
    for number, data in enumerate(split_file(file), start=1):
        control = ""
        try:
            message = parse(data)
            control = message.head.text(10)
            messages.append((number, control, read_items(message)))
        except Hl7Error as error:
            refused[number] = _Row(f"message {number}", control, str(error))
    items = [item for _, _, items in messages for item in items]
    if midnight is None and items:
        midnight = first_midnight(items)
    sink = OrderList()
    prescriptions = _prescriptions(sink, midnight or datetime.now(UTC), day, manual_s)
    for number, control, asked in messages:
        try:
            plan = prescriptions.plan(asked)
        except ValueError as error:
            refused[number] = _Row(f"message {number}", control, str(error))
            continue
        prescriptions.commit(asked, plan)
        for name in plan.cancels:
            sink.cancel(name)
        for order in plan.orders:
            sink.submit(order)
    parked = [_Row("", item.id, "on hold") for item in prescriptions.held]
    rows = [row for _, row in sorted(refused.items())]
    return _Found(tuple(sink.orders.values()), parked, [], rows, midnight)


def _read_fhir(
    file: Path, midnight: datetime | None, day: PharmacyDay | None, manual_s: float
) -> _Found:
    """Orders of a resource or bundle."""
    reading = read_requests(file)
    if midnight is None and reading.items:
        midnight = first_midnight(reading.items)
    groups: dict[str, list[Item]] = {}
    for item in reading.items:
        groups.setdefault(item.order, []).append(item)
    drugs = day.bins_of.keys() if day else None
    found = []
    for name, items in groups.items():
        assert midnight is not None
        order = order_of(name, items, midnight, machine_drugs=drugs, manual_s=manual_s)
        found += [order] if order else []
    parked = [_Row("", item.id, "on hold") for item in reading.parked]
    dropped, refused = (
        [_Row(one.path, one.id, one.reason) for one in rows]
        for rows in (reading.dropped, reading.refused)
    )
    return _Found(tuple(found), parked, dropped, refused, midnight)


def _tell(file: Path, found: _Found, output: Path, *, as_json: bool) -> None:
    lines = [line for order in found.orders for line in order.lines]
    by_hand = sum(line.is_manual for line in lines)
    rows = {"parked": found.parked, "dropped": found.dropped, "refused": found.refused}
    if as_json:
        document = {
            "file": str(file),
            "day_start": found.midnight.isoformat() if found.midnight else None,
            "orders": [json.loads(json.dumps(asdict(o), default=str)) for o in found.orders],
            "num_lines": len(lines),
            "num_by_hand": by_hand,
            **{name: [row._asdict() for row in part] for name, part in rows.items()},
            "written": {"orders": str(output)} if found.orders else {},
        }
        print(json.dumps(document, indent=2))
        return
    for name, part in rows.items():
        if part:
            out.print(_table(name, part))
    print(f"{file}: {len(found.orders)} orders, {len(lines)} lines, {by_hand} of them by hand")
    if found.orders and found.midnight:
        print(f"day from {found.midnight.isoformat()}")
        print(f"orders: {output}")


def _table(title: str, rows: Iterable[_Row]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("where", "id", "reason"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("".join(c if c.isprintable() else "?" for c in text) for text in row))
    return table
