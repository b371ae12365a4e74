"""Days of a dispensing machine in files: one JSON document, or four files in a folder.

The folder holds ``orders.csv`` and ``bins.csv`` (see `wardwise.io.pharmacy_tables`), and, where
they differ from the defaults, ``layout.json`` (the machine) and ``service.json`` (how long a
pharmacist takes: a distribution, or the times of a log). The JSON document holds all four. What is
written reads back equal.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from wardwise.errors import InputError, quote
from wardwise.io.documents import layout, validated
from wardwise.io.files import read_text, write_text
from wardwise.io.pharmacy_tables import format_bins, format_orders, read_bins, read_orders
from wardwise.pharmacy import service_time
from wardwise.pharmacy.problem import Bin, Order, PharmacyDay
from wardwise.pharmacy.rack import Machine
from wardwise.pharmacy.service_time import Lognormal, ServiceTime

if TYPE_CHECKING:
    import os

DAY_SCHEMA = "wardwise/pharmacy/1"
LAYOUT_SCHEMA = "wardwise/pharmacy-layout/1"
SERVICE_SCHEMA = "wardwise/pharmacy-service/1"
ORDERS, BINS, LAYOUT, SERVICE = "orders.csv", "bins.csv", "layout.json", "service.json"

SERVICE_KINDS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (
        service_time.Fixed, service_time.Exponential, service_time.Lognormal, service_time.Gamma,
        service_time.Normal, service_time.Uniform, service_time.Triangular, service_time.Empirical,
    )
}  # fmt: skip

# Checked field by field in `_service_of`: the fields depend on the kind.
Service = dict[str, str | float | tuple[float, ...]]


class _Model(BaseModel):
    """Unknown fields are errors, and types are strict."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DayModel(_Model):
    """A whole day. Seconds, metres, packs."""

    schema_: Literal["wardwise/pharmacy/1"] = Field(alias="schema")
    machine: Machine = Machine()
    service: Service = {"kind": "lognormal"}
    bins: tuple[Bin, ...]
    orders: tuple[Order, ...]


class LayoutModel(_Model):
    """The machine."""

    schema_: Literal["wardwise/pharmacy-layout/1"] = Field(alias="schema")
    machine: Machine


class ServiceModel(_Model):
    """Time that a pharmacist takes for a bin."""

    schema_: Literal["wardwise/pharmacy-service/1"] = Field(alias="schema")
    service: Service


def read_pharmacy(path: str | os.PathLike[str]) -> PharmacyDay:
    """Read a day from a JSON file, or from a folder with orders.csv and bins.csv.

    Raises
    ------
    InputError
        Naming file, line or JSON field, and what was expected.
    """
    folder = Path(path)
    if not folder.is_dir():
        return parse_pharmacy(read_text(path), path)
    has_layout, has_service = ((folder / name).exists() for name in (LAYOUT, SERVICE))
    machine = read_layout(folder / LAYOUT) if has_layout else Machine()
    service = read_service(folder / SERVICE) if has_service else Lognormal()
    bins, orders = read_bins(folder / BINS, machine.rack), read_orders(folder / ORDERS)
    return _day(path, machine=machine, bins=bins, orders=orders, service=service)


def parse_pharmacy(text: str, path: str | os.PathLike[str]) -> PharmacyDay:
    """Read the JSON text of a day; `path` is for messages only.

    Raises
    ------
    InputError
        Naming the JSON field, or line and column where it is no JSON.
    """
    model = validated(DayModel, text, path)
    service = _service_of(model.service, path)
    return _day(
        path, machine=model.machine, bins=model.bins, orders=model.orders, service=service
    )  # fmt: skip


def write_pharmacy(day: PharmacyDay, path: str | os.PathLike[str]) -> None:
    """Write a day as JSON, or as four files where `path` is a folder.

    Raises
    ------
    ValueError
        If something would not read back equal.
    OSError
        If a file cannot be written.
    """
    folder = Path(path)
    if not folder.is_dir():
        text = format_pharmacy(day)
        if parse_pharmacy(text, path) != day:
            raise ValueError("day: expected tuples, text and plain numbers, got other types")
        write_text(path, text)
        return
    machine, service = _plain(asdict(day.machine)), _service_document(day.service)
    files = {
        LAYOUT: layout({"schema": LAYOUT_SCHEMA, "machine": machine}) + "\n",
        SERVICE: layout({"schema": SERVICE_SCHEMA, "service": service}) + "\n",
        BINS: format_bins(day.bins, day.machine.rack),
        ORDERS: format_orders(day.orders),
    }
    for name, text in files.items():
        write_text(folder / name, text)
    if read_pharmacy(folder) != day:
        raise ValueError("day: expected names without line ends, got something CSV cannot hold")


def format_pharmacy(day: PharmacyDay) -> str:
    """JSON text of a day."""
    document = {
        "schema": DAY_SCHEMA,
        "machine": _plain(asdict(day.machine)),
        "service": _service_document(day.service),
        "bins": [_plain(asdict(bin_)) for bin_ in day.bins],
        "orders": [_plain(asdict(order)) for order in day.orders],
    }
    return layout(document) + "\n"


def read_layout(path: str | os.PathLike[str]) -> Machine:
    """Read a machine from JSON; raises `InputError` naming the field."""
    return validated(LayoutModel, read_text(path), path).machine


def read_service(path: str | os.PathLike[str]) -> ServiceTime:
    """Read a distribution or a list of samples from JSON; raises `InputError` naming the field."""
    return _service_of(validated(ServiceModel, read_text(path), path).service, path)


def _day(path: str | os.PathLike[str], **parts: Any) -> PharmacyDay:
    try:
        return PharmacyDay(**parts)
    except ValueError as error:
        subject, _, problem = str(error).partition(": ")
        raise InputError(path, problem or subject, field=subject if problem else None) from error


def _service_of(fields: Service, path: str | os.PathLike[str]) -> ServiceTime:
    """Distribution from the fields of its class and its kind."""
    kind = fields.get("kind")
    if kind not in SERVICE_KINDS:
        expected = ", ".join(SERVICE_KINDS)
        raise InputError(
            path, f"expected one of {expected}, got {quote(kind)}", field="service.kind"
        )
    of_kind = SERVICE_KINDS[str(kind)]
    known = {field.name: field for field in dataclasses.fields(of_kind)}
    values = {name: value for name, value in fields.items() if name != "kind"}
    for name, value in values.items():
        if name not in known:
            expected = " or ".join(known)
            problem = f"expected {expected} with kind {kind}, got this field"
            raise InputError(path, problem, field=f"service.{name}")
        wants_list = name == "samples_s"
        if isinstance(value, str) or isinstance(value, tuple) != wants_list:
            expected = "a list of numbers" if wants_list else "a number"
            problem = f"expected {expected}, got {quote(value)}"
            raise InputError(path, problem, field=f"service.{name}")
    if kind == "empirical" and not values:
        raise InputError(path, "expected a value, got none", field="service.samples_s")
    try:
        service: ServiceTime = of_kind(**values)
    except ValueError as error:
        problem = str(error).removeprefix(f"{kind}: ")
        raise InputError(path, problem, field="service") from error
    return service


def _service_document(service: ServiceTime) -> dict[str, Any]:
    kind = type(service).__name__.lower()
    if SERVICE_KINDS.get(kind) is not type(service):
        raise ValueError(f"service: expected one of {', '.join(SERVICE_KINDS)}, got {kind}")
    return {"kind": kind, **asdict(service)}  # type: ignore[call-overload]


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields that say something, with dates as text, here and below."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None:
            continue
        if isinstance(value, dict):
            found[name] = _plain(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], dict):
            found[name] = [_plain(item) for item in value]
        else:
            found[name] = value.isoformat() if hasattr(value, "isoformat") else value
    return found
