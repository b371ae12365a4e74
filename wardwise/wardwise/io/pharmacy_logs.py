"""What a pharmacy has written down, as comma-separated values: times of its people, deliveries.

The rules of `wardwise.io.pharmacy_tables` hold: the first line names the columns, in any sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wardwise.errors import InputError
from wardwise.io.files import read_text
from wardwise.io.pharmacy_tables import (
    BIN_COLUMNS,
    BIN_OPTIONAL,
    MAX_PACKS,
    bin_of,
    records_of,
    saying_where,
)
from wardwise.pharmacy.online import Refill
from wardwise.pharmacy.service_model import ServiceModel, ServiceRecord, fit_service_model

if TYPE_CHECKING:
    import os

    from wardwise.pharmacy.rack import Rack

SERVICE_COLUMNS = ("seconds", "drug", "person", "packs", "scanned")
SERVICE_OPTIONAL = ("drug", "person", "packs", "scanned")
REFILL_COLUMNS = ("time", *BIN_COLUMNS)
REFILL_OPTIONAL = (*BIN_OPTIONAL, "part")


def read_service_log(path: str | os.PathLike[str]) -> ServiceModel:
    """Fit service times to a log with one bin a row: seconds, drug, person, packs, scanned.

    Raises
    ------
    InputError
        Naming line, column and accepted range; or the file, where its times do not suffice.
    """
    log = []
    for record in records_of(read_text(path), path, SERVICE_COLUMNS, SERVICE_OPTIONAL):
        with saying_where(record.row):
            log.append(
                ServiceRecord(
                    seconds=record.number("seconds") or 0.0,
                    drug=record.text("drug"),
                    person=record.text("person"),
                    packs=record.integer("packs", minimum=1, maximum=MAX_PACKS, default=1),
                    is_scanned=record.mark("scanned"),
                )
            )
    try:
        return fit_service_model(log)
    except ValueError as error:
        raise InputError(path, str(error)) from error


def read_refills(path: str | os.PathLike[str], rack: Rack) -> tuple[Refill, ...]:
    """Read new packs that come during the day: the columns of bins, and when they come.

    Raises
    ------
    InputError
        Naming line, column and accepted range.
    """
    found = []
    for record in records_of(read_text(path), path, REFILL_COLUMNS, REFILL_OPTIONAL):
        with saying_where(record.row):
            time_s = record.number("time") or 0.0
            found.append(
                Refill(time_s=time_s, bin=bin_of(record, rack), is_part=record.mark("part"))
            )
    return tuple(sorted(found, key=lambda refill: refill.time_s))
