"""Prescriptions in FHIR R4 and R4B: MedicationRequest, alone or in a Bundle.

A MedicationRequest asks for one drug; those of one ``groupIdentifier`` are one prescription. Only
active orders are planned. Those on hold are put aside; drafts, plans, cancelled, stopped, completed
and mistaken ones, and those that say ``doNotPerform``, are dropped and reported.

What must not be ignored is refused: ``modifierExtension`` and ``implicitRules`` change what a
resource means in ways that we do not know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wardwise.errors import InputError, quote
from wardwise.io.fhir.tree import FhirError, Node, parse
from wardwise.io.files import read_text
from wardwise.io.prescriptions import Item, packs
from wardwise.pharmacy.problem import Priority

if TYPE_CHECKING:
    import os
    from datetime import datetime

PRIORITIES = {
    "stat": Priority.STAT, "asap": Priority.URGENT, "urgent": Priority.URGENT,
    "routine": Priority.ROUTINE, "": Priority.ROUTINE,
}  # fmt: skip
STATUSES = ("active", "on-hold", "cancelled", "completed", "entered-in-error", "stopped", "draft",
            "unknown")  # fmt: skip
# An order and the kinds of orders that the value set has below it.
ORDERS = ("order", "original-order", "reflex-order", "filler-order", "instance-order")
INTENTS = (*ORDERS, "proposal", "plan", "option")
REQUEST, MEDICATION = "MedicationRequest", "Medication"


@dataclass(frozen=True, kw_only=True)
class Unplanned:
    """A resource that is not planned, and why.

    Parameters
    ----------
    path
        Its place in the document.
    id
        Its number where it could be read.
    reason
        Why.
    """

    path: str
    id: str
    reason: str


@dataclass(kw_only=True)
class Reading:
    """What a document asks for.

    Attributes
    ----------
    items
        Lines to be planned.
    parked
        Lines on hold.
    dropped
        Requests that are not wanted (any more).
    refused
        Requests that could not be read; the others of the document are not affected.
    """

    items: list[Item] = field(default_factory=list)
    parked: list[Item] = field(default_factory=list)
    dropped: list[Unplanned] = field(default_factory=list)
    refused: list[Unplanned] = field(default_factory=list)


def read_requests(path: str | os.PathLike[str]) -> Reading:
    """Read the medication requests of a JSON file.

    Raises
    ------
    InputError
        If the file cannot be read, is no JSON, or holds no medication requests.
    """
    try:
        return parse_requests(read_text(path))
    except FhirError as error:
        problem = str(error).removeprefix(f"{error.path}: ")
        raise InputError(path, problem, field=error.path or None) from error


def parse_requests(text: str) -> Reading:
    """Read the medication requests of a JSON text; see `read_requests`.

    Raises
    ------
    FhirError
        Naming the path in the document.
    """
    root = parse(text)
    kind = root.text("resourceType")
    known: dict[str, Node] = {}
    if kind == REQUEST:
        requests = [root]
    elif kind == "Bundle":
        requests, known = _entries(root)
    else:
        root.fail("resourceType", f"{REQUEST} or Bundle")
    if not requests:
        raise FhirError("entry", f"expected at least one {REQUEST}, got none")
    found = Reading()
    seen: dict[str, Item] = {}
    for request in requests:
        try:
            _read(request, known, found, seen)
        except FhirError as error:
            problem = str(error).removeprefix(f"{error.path}: ")
            found.refused.append(Unplanned(path=error.path, id=_label(request), reason=problem))
    return found


def _entries(bundle: Node) -> tuple[list[Node], dict[str, Node]]:
    """Medication requests of a bundle, and the other resources by all names that they have."""
    requests, known = [], {}
    for entry in bundle.children("entry"):
        resource = entry.child("resource")
        if resource is None:
            continue
        kind = resource.text("resourceType", "a kind of resource")
        if kind == REQUEST:
            requests.append(resource)
            continue
        for name in (entry.text("fullUrl"), f"{kind}/{resource.text('id')}"):
            known[name] = resource
    return requests, known


def _label(request: Node) -> str:
    """Number or id of a request that may be broken."""
    try:
        return _number(request)
    except FhirError:
        found = request.fields.get("id")
        return found if isinstance(found, str) else ""


def _read(request: Node, known: dict[str, Node], found: Reading, seen: dict[str, Item]) -> None:
    """Sort one request into what is planned, on hold, dropped."""
    _require_understood(request)
    status = _one_of(request, "status", STATUSES)
    intent = _one_of(request, "intent", INTENTS)
    if status not in ("active", "on-hold"):
        reason = f"status {status}"
    elif intent not in ORDERS:
        reason = f"intent {intent}"
    elif request.flag("doNotPerform"):
        reason = "doNotPerform"
    else:
        reason = ""
    if reason:
        found.dropped.append(Unplanned(path=request.path, id=_label(request), reason=reason))
        return
    item = _item(request, known)
    _require_new(request, item, seen)
    (found.items if status == "active" else found.parked).append(item)


def _require_understood(node: Node) -> None:
    for name in ("modifierExtension", "implicitRules"):
        if node.fields.get(name):
            node.fail(name, "none, as its meaning is not known")


def _require_new(request: Node, item: Item, seen: dict[str, Item]) -> None:
    """Refuse a number that came before, and a prescription of two patients."""
    if item.id in seen:
        request.fail("identifier", f"each request once, and {quote(item.id)} came before")
    other = next((one for one in seen.values() if one.order == item.order), item)
    if other.patient != item.patient:
        request.fail("subject", f"{quote(other.patient)} as in the same prescription")
    seen[item.id] = item


def _one_of(node: Node, name: str, codes: tuple[str, ...]) -> str:
    if node.text(name) not in codes:
        node.fail(name, f"one of {', '.join(codes)}")
    return node.text(name)


def _item(request: Node, known: dict[str, Node]) -> Item:
    """Line of an order."""
    if request.text("priority") not in PRIORITIES:
        request.fail("priority", f"one of {', '.join(code for code in PRIORITIES if code)}")
    medication = _medication(request, known)
    drug, name = _code(medication)
    number = _number(request)
    group = request.child("groupIdentifier")
    dispense = request.child("dispenseRequest")
    if dispense is None:
        request.fail("dispenseRequest", "an object with a quantity")
    start, end = _window(request, dispense)
    subject = request.child("subject") or request.fail("subject", "a patient")
    return Item(
        id=number, order=(group.word("value", "a number") if group else "") or number,
        patient=_reference(subject), drug=drug, quantity=_packs(dispense, medication),
        priority=PRIORITIES[request.text("priority")], start=start, end=end,
        destination=_destination(request, known), note=_substitution(request),
        source={
            "request": f"{REQUEST}/{request.word('id')}" if "id" in request.fields else "",
            "code": drug, "display": name, "system": _coding(medication).word("system"),
        },
    )  # fmt: skip


def _number(request: Node) -> str:
    """First identifier with a value, else the id of the resource."""
    for identifier in request.children("identifier"):
        if value := identifier.word("value"):
            return value
    return request.word("id", "an identifier or an id")


def _reference(node: Node) -> str:
    """Reference, identifier or text that says who or what is meant."""
    identifier = node.child("identifier")
    logical = identifier.word("value") if identifier else ""
    found = node.word("reference") or logical or node.word("display")
    if not found:
        node.fail("reference", "a reference, an identifier or a display text")
    return found


def _destination(request: Node, known: dict[str, Node]) -> str:
    """Where the patient is: the last location of the encounter, else what is said of that."""
    encounter = request.child("encounter")
    if encounter is None:
        return ""
    found = known.get(encounter.word("reference"))
    places = [place.child("location") for place in found.children("location")] if found else []
    node = (places or [None])[-1] or encounter
    return node.word("display") or _reference(node)


def _medication(request: Node, known: dict[str, Node]) -> Node:
    """What holds the code: a CodeableConcept, or a Medication that is referred to."""
    concept = request.child("medicationCodeableConcept")
    reference = request.child("medicationReference")
    if (concept is None) == (reference is None):
        request.fail(
            "medicationCodeableConcept", "either this or medicationReference, one of the two"
        )
    if reference is None:
        assert concept is not None
        return Node({"code": concept.fields}, request.path)
    name = reference.text("reference", "a reference")
    found = known.get(name)
    if name.startswith("#"):
        contained = request.children("contained")
        found = next((node for node in contained if node.text("id") == name[1:]), None)
    if found is None or found.text("resourceType") != MEDICATION:
        reference.fail("reference", "a Medication that is contained, or in the bundle")
    _require_understood(found)
    return found


def _coding(medication: Node) -> Node:
    """Coding that the user selected, else the first that has a code."""
    code = medication.child("code") or medication.fail("code", "a code")
    codings = [coding for coding in code.children("coding") if coding.text("code")]
    chosen = [coding for coding in codings if coding.flag("userSelected")]
    return (chosen or codings or [code.fail("coding", "at least one with a code")])[0]


def _code(medication: Node) -> tuple[str, str]:
    coding = _coding(medication)
    return coding.word("code", "a code"), coding.word("display")


def _packs(dispense: Node, medication: Node) -> int:
    """Packs of the first fill, else of the whole; Medication.amount says what a pack holds."""
    first = dispense.child("initialFill")
    quantity = (first.child("quantity") if first else None) or dispense.child("quantity")
    if quantity is None:
        dispense.fail("quantity", "a quantity")
    amount = quantity.number("value")
    if amount is None or "comparator" in quantity.fields:
        quantity.fail("value" if amount is None else "comparator", "one exact number")
    size, size_unit = _pack_size(medication)
    unit = quantity.text("code") or quantity.text("unit")
    try:
        return packs(amount, unit, size, size_unit)
    except ValueError as error:
        raise FhirError(quantity.path, str(error)) from error


def _pack_size(medication: Node) -> tuple[float | None, str]:
    """What one pack holds: the ratio Medication.amount."""
    amount = medication.child("amount")
    if amount is None:
        return None, ""
    top, bottom = amount.child("numerator"), amount.child("denominator")
    value = top.number("value") if top else None
    if top is None or value is None:
        amount.fail("numerator", "a quantity with a value")
    per = bottom.number("value") if bottom else 1.0
    if bottom and not per:
        bottom.fail("value", "a number above 0")
    return value / (per or 1.0), top.text("code") or top.text("unit")


def _window(request: Node, dispense: Node) -> tuple[datetime | None, datetime | None]:
    """From authoredOn, not before the validity period, to the end of that."""
    start = request.moment("authoredOn")
    period = dispense.child("validityPeriod")
    if period is None:
        return start, None
    begin, end = period.moment("start"), period.moment("end")
    if begin and (start is None or begin.replace(tzinfo=None) > start.replace(tzinfo=None)):
        start = begin
    if begin and end and end.replace(tzinfo=None) < begin.replace(tzinfo=None):
        period.fail("end", f"a time after {begin.isoformat()}")
    return start, end


def _substitution(request: Node) -> str:
    """Whether another product may be given: the machine gives what was asked for, people decide."""
    substitution = request.child("substitution")
    if substitution is None:
        return ""
    if "allowedCodeableConcept" in substitution.fields:
        concept = substitution.child("allowedCodeableConcept")
        codes = [coding.word("code") for coding in concept.children("coding")] if concept else []
        return f"substitution: {', '.join(code for code in codes if code)}"
    allowed = substitution.flag("allowedBoolean")
    return "substitution allowed" if allowed else "no substitution"
