"""What was dispensed, as FHIR R4 and R4B: one MedicationDispense for each lot of a line.

The medication is contained, since that is where lot and expiry belong (``Medication.batch``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wardwise.io.prescriptions import aware

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from wardwise.io.prescriptions import Given

STATUSES = ("preparation", "in-progress", "completed", "on-hold", "declined", "stopped")
NEEDS_REASON = ("on-hold", "declined", "stopped")
PACK = {"value": 0, "unit": "Package", "system": "http://unitsofmeasure.org", "code": "{Package}"}


def medication_dispense(
    given: Given,
    midnight: datetime,
    *,
    status: str = "completed",
    reason: str = "",
    id_: str = "",
    receiver: str = "",
) -> dict[str, Any]:
    """Tell what was given out, or is to be, of one lot.

    Parameters
    ----------
    given
        Packs, lot and expiry, when, by whom, where.
    midnight
        A time without an offset has that of this one.
    status
        One of `STATUSES`.
    reason
        Why it is on hold, declined or stopped; only then.
    id_
        Of the resource.
    receiver
        Who took it.

    Raises
    ------
    ValueError
        Naming the field and what is accepted.
    """
    if status not in STATUSES:
        raise ValueError(f"status: expected one of {', '.join(STATUSES)}, got {status!r}")
    if bool(reason) != (status in NEEDS_REASON):
        expected = "a reason" if status in NEEDS_REASON else "none"
        raise ValueError(f"reason: expected {expected} with status {status}, got {reason!r}")
    item = given.item
    request, destination = item.source.get("request"), item.destination
    found: dict[str, Any] = {
        "resourceType": "MedicationDispense",
        "id": id_,
        "contained": [_medication(given)],
        "status": status,
        "statusReasonCodeableConcept": {"text": reason} if reason else None,
        "medicationReference": {"reference": "#medication"},
        "subject": _who(item.patient),
        "performer": [{"actor": {"display": given.person}}] if given.person else None,
        "location": {"display": given.place} if given.place else None,
        "authorizingPrescription": [
            {"reference": request} if request else {"identifier": {"value": item.id}}
        ],
        "quantity": {**PACK, "value": given.quantity},
        "whenPrepared": aware(given.prepared_at, midnight).isoformat(),
        "whenHandedOver": aware(given.handed_over_at, midnight).isoformat()
        if given.handed_over_at
        else None,
        "destination": {"display": destination} if destination else None,
        "receiver": [{"display": receiver}] if receiver else None,
        "note": [{"text": given.note}] if given.note else None,
    }
    return {name: value for name, value in found.items() if value}


def dispense_bundle(
    given: Iterable[Given], midnight: datetime, *, status: str = "completed"
) -> dict[str, Any]:
    """Collection of dispenses, one for each lot of a line."""
    resources = [medication_dispense(one, midnight, status=status) for one in given]
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": resource} for resource in resources],
    }


def _medication(given: Given) -> dict[str, Any]:
    source = given.item.source
    coding = {
        "system": source.get("system"), "code": given.item.drug, "display": source.get("display"),
    }  # fmt: skip
    batch = {
        "lotNumber": given.lot,
        "expirationDate": given.expiry.isoformat() if given.expiry else "",
    }
    found = {
        "resourceType": "Medication",
        "id": "medication",
        "code": {"coding": [{name: value for name, value in coding.items() if value}]},
        "batch": {name: value for name, value in batch.items() if value},
    }
    return {name: value for name, value in found.items() if value}


def _who(patient: str) -> dict[str, Any] | None:
    if not patient:
        return None
    is_reference = "/" in patient or patient.startswith(("urn:", "#"))
    return {"reference": patient} if is_reference else {"identifier": {"value": patient}}
