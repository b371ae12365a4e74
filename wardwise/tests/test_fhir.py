"""MedicationRequest in, MedicationDispense out; fhir.resources builds and judges them (R4B)."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.medicationdispense import MedicationDispense
from fhir.resources.R4B.medicationrequest import MedicationRequest
from hypothesis import given
from hypothesis import strategies as st

from wardwise.errors import InputError
from wardwise.io.fhir import (
    FhirError,
    dispense_bundle,
    medication_dispense,
    parse_requests,
    read_requests,
)
from wardwise.io.prescriptions import Given, Item
from wardwise.pharmacy.problem import Priority

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)


def request(number=1, **changes):
    """A request as JSON, which fhir.resources accepts; None takes a field away."""
    fields = {
        "resourceType": "MedicationRequest",
        "id": f"r{number}",
        "identifier": [{"system": "urn:rx", "value": f"O{number}"}],
        "groupIdentifier": {"system": "urn:rx", "value": "G1"},
        "status": "active",
        "intent": "order",
        "priority": "urgent",
        "medicationCodeableConcept": {
            "coding": [{"system": "urn:pzn", "code": f"D{number}", "display": "Drug"}]
        },
        "subject": {"reference": "Patient/p1"},
        "encounter": {"reference": "Encounter/e1"},
        "authoredOn": "2026-03-02T08:15:00+01:00",
        "dispenseRequest": {
            "quantity": {"value": 2, "unit": "Package"},
            "validityPeriod": {"start": "2026-03-02T09:00:00+01:00", "end": "2026-03-03"},
        },
        "substitution": {"allowedBoolean": False},
    } | changes
    found = {name: value for name, value in fields.items() if value is not None}
    MedicationRequest.model_validate(found)
    return found


def bundle(*resources):
    """A searchset bundle, with a ward for the encounter."""
    ward = {
        "resourceType": "Encounter",
        "id": "e1",
        "status": "in-progress",
        "class": {"code": "IMP"},
        "location": [{"location": {"display": "W3"}}],
    }
    found = {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": one} for one in (*resources, ward)],
    }
    Bundle.model_validate(found)
    return json.dumps(found)


def only(document):
    """The one line of a document."""
    found = parse_requests(json.dumps(document))
    assert found.refused == []
    return found.items[0]


def test_request_is_read_field_by_field():
    """Identifier, group, priority, code, packs, times, patient, ward."""
    (item,) = parse_requests(bundle(request())).items
    assert (item.id, item.order, item.patient) == ("O1", "G1", "Patient/p1")
    assert (item.drug, item.quantity, item.priority) == ("D1", 2, Priority.URGENT)
    assert item.start.isoformat() == "2026-03-02T09:00:00+01:00"
    assert item.end == datetime(2026, 3, 3)
    assert (item.destination, item.note) == ("W3", "no substitution")
    assert item.source["request"] == "MedicationRequest/r1"


def test_single_resource_without_identifiers():
    """The id of the resource is its number, and it is a prescription of its own."""
    item = only(request(identifier=None, groupIdentifier=None, priority=None, encounter=None))
    assert (item.id, item.order, item.priority, item.destination) == (
        "r1", "r1", Priority.ROUTINE, "",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "priority"),
    [("stat", "stat"), ("asap", "urgent"), ("urgent", "urgent"), ("routine", "routine")],
)
def test_priorities(code, priority):
    """All four codes of FHIR."""
    assert only(request(priority=code)).priority == priority


def test_only_active_orders_are_planned():
    """On hold is put aside; the rest is dropped with its reason."""
    statuses = ("active", "on-hold", "cancelled", "stopped", "entered-in-error", "completed",
                "draft", "unknown")  # fmt: skip
    requests = [request(k, status=status) for k, status in enumerate(statuses)]
    requests += [request(10, intent="plan"), request(11, intent="filler-order"),
                 request(12, doNotPerform=True)]  # fmt: skip
    found = parse_requests(bundle(*requests))
    assert [item.id for item in found.items] == ["O0", "O11"]
    assert [item.id for item in found.parked] == ["O1"]
    assert {(one.id, one.reason) for one in found.dropped} == {
        ("O2", "status cancelled"), ("O3", "status stopped"), ("O4", "status entered-in-error"),
        ("O5", "status completed"), ("O6", "status draft"), ("O7", "status unknown"),
        ("O10", "intent plan"), ("O12", "doNotPerform"),
    }  # fmt: skip


def test_medication_by_reference():
    """Contained or in the bundle; its amount says how many tablets a pack holds."""
    medication = {
        "resourceType": "Medication",
        "id": "m1",
        "code": {"coding": [{"code": "OLD"}, {"code": "NEW", "userSelected": True}]},
        "amount": {"numerator": {"value": 20, "code": "TAB"}, "denominator": {"value": 1}},
    }
    dispense = {"quantity": {"value": 50, "unit": "tablets", "code": "TAB"},
                "initialFill": {"quantity": {"value": 25, "code": "TAB"}}}  # fmt: skip
    changes = {"medicationCodeableConcept": None, "dispenseRequest": dispense}
    inside = request(contained=[medication], medicationReference={"reference": "#m1"}, **changes)
    beside = request(medicationReference={"reference": "Medication/m1"}, **changes)
    for item in (only(inside), parse_requests(bundle(beside, medication)).items[0]):
        assert (item.drug, item.quantity) == ("NEW", 2)  # 25 of 20 a pack


@pytest.mark.parametrize(
    ("changes", "path", "told"),
    [
        ({"status": "on"}, "status", "expected one of active, on-hold"),
        ({"status": 3}, "status", "expected text, got 3"),
        ({"intent": None}, "intent", "expected one of order"),
        ({"priority": "soon"}, "priority", "expected one of stat, asap, urgent, routine"),
        ({"identifier": {"value": 1}}, "identifier", "expected a list"),
        ({"identifier": ["x"]}, "identifier[0]", "expected an object"),
        ({"identifier": [{"value": "x" * 201}]}, "identifier[0].value", "at most 200 printable"),
        ({"identifier": [{"value": "a\nb"}]}, "identifier[0].value", "at most 200 printable"),
        ({"groupIdentifier": {}}, "groupIdentifier.value", "expected a number"),
        ({"subject": None}, "subject", "expected a patient"),
        ({"subject": {}}, "subject.reference", "expected a reference"),
        ({"medicationCodeableConcept": None}, "medicationCodeableConcept", "either this or"),
        ({"medicationReference": {"reference": "#m"}}, "medicationCodeableConcept", "either this"),
        ({"medicationCodeableConcept": None, "medicationReference": {"reference": "#m"}},
         "medicationReference.reference", "a Medication that is contained"),
        ({"medicationCodeableConcept": {"text": "aspirin"}}, "code.coding", "one with a code"),
        ({"dispenseRequest": None}, "dispenseRequest", "an object with a quantity"),
        ({"dispenseRequest": {}}, "dispenseRequest.quantity", "expected a quantity"),
        ({"dispenseRequest": {"quantity": {}}}, "dispenseRequest.quantity.value", "exact number"),
        ({"dispenseRequest": {"quantity": {"value": True}}}, "dispenseRequest.quantity.value",
         "expected a number, got True"),
        ({"dispenseRequest": {"quantity": {"value": "2"}}}, "dispenseRequest.quantity.value",
         "expected a number, got '2'"),
        ({"dispenseRequest": {"quantity": {"value": 1e99}}}, "dispenseRequest.quantity.value",
         "from 0 to 1e+12"),
        ({"dispenseRequest": {"quantity": {"value": 2, "comparator": "<"}}},
         "dispenseRequest.quantity.comparator", "one exact number"),
        ({"dispenseRequest": {"quantity": {"value": 30, "unit": "TAB"}}},
         "dispenseRequest.quantity", "expected packs, or a package size"),
        ({"authoredOn": "yesterday"}, "authoredOn", "expected a time as"),
        ({"authoredOn": "2026-02-31"}, "authoredOn", "expected a time as"),
        ({"dispenseRequest": {"quantity": {"value": 1}, "validityPeriod":
          {"start": "2026-03-02", "end": "2026-03-01"}}},
         "dispenseRequest.validityPeriod.end", "expected a time after"),
        ({"modifierExtension": [{"url": "x"}]}, "modifierExtension", "meaning is not known"),
        ({"implicitRules": "urn:x"}, "implicitRules", "meaning is not known"),
        ({"doNotPerform": "yes"}, "doNotPerform", "true or false"),
    ],
)  # fmt: skip
def test_refusals_name_the_path(changes, path, told):
    """One bad request of a bundle is refused with its path, the other is read."""
    bad = {name: value for name, value in (request() | changes).items() if value is not None}
    document = {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": bad}, {"resource": request(2)}],
    }
    found = parse_requests(json.dumps(document))
    assert [item.id for item in found.items] == ["O2"]
    (refused,) = found.refused
    assert refused.path == f"entry[0].resource.{path}"
    assert told in refused.reason


def test_number_and_patient_of_a_prescription_are_checked():
    """A number that came before, and a second patient in one prescription."""
    found = parse_requests(
        bundle(request(), request(), request(3, subject={"reference": "Patient/p2"}))
    )
    assert [one.path for one in found.refused] == [
        "entry[1].resource.identifier", "entry[2].resource.subject",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected JSON"),
        ("{", "line 1, column 2: expected JSON"),
        ("[]", "expected a resource"),
        ("NaN", "expected JSON, got: NaN"),
        ('{"resourceType": "Patient"}', "resourceType: expected MedicationRequest or Bundle"),
        ('{"resourceType": "Bundle"}', "entry: expected at least one MedicationRequest"),
        ('{"resourceType": "Bundle", "entry": 3}', "entry: expected a list"),
        ('{"a": 1, "a": 2}', "a: expected once"),
        ('{"a": ' * 100_000, "expected JSON"),
        ("[" * 100_000 + "]" * 100_000, "expected JSON without deep nesting"),
        ('{"a": ' + "9" * 10_000 + "}", "expected JSON"),
    ],
)
def test_hostile_documents_are_refused(text, told):
    """No JSON, other resources, fields twice, deep nesting, endless numbers."""
    with pytest.raises(FhirError, match="expected") as info:
        parse_requests(text)
    assert told in str(info.value)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@given(st.sampled_from(sorted(request())), JUNK)
def test_junk_in_any_field_is_refused_or_read(name, junk):
    """Whatever stands in a field: a reading or our own refusal."""
    try:
        found = parse_requests(json.dumps(request() | {name: junk}))
    except FhirError as error:
        assert "expected" in str(error)
    else:
        assert len(found.items) + len(found.parked) + len(found.dropped + found.refused) == 1


def test_file_errors_name_the_file(tmp_path):
    """In one line."""
    file = tmp_path / "a.json"
    file.write_text('{"resourceType": "Bundle",\n "entry": [}')
    with pytest.raises(InputError, match=r"a\.json: line 2, column 12: expected JSON"):
        read_requests(file)


LOTS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)


@given(LOTS, st.integers(1, 999), st.dates(date(1999, 1, 1)))
def test_dispense_is_valid_and_holds_all_fields(lot, quantity, expiry):
    """fhir.resources accepts it and finds each listed field where it belongs."""
    item = parse_requests(bundle(request())).items[0]
    given_ = Given(item=item, quantity=quantity, lot=lot, expiry=expiry, prepared_at=NOW,
                   handed_over_at=datetime(2026, 3, 2, 9), person="RPh 1", place="point 1",
                   note="keep cool")  # fmt: skip
    document = medication_dispense(given_, NOW, id_="d1", receiver="W3 desk")
    found = MedicationDispense.model_validate_json(json.dumps(document))
    assert found.status == "completed"
    assert found.authorizingPrescription[0].reference == "MedicationRequest/r1"
    medication = found.contained[0]
    assert found.medicationReference.reference == f"#{medication.id}"
    assert medication.code.coding[0].code == "D1"
    assert medication.batch.lotNumber == lot
    assert medication.batch.expirationDate == expiry
    assert found.quantity.value == quantity
    assert found.whenPrepared == NOW
    assert found.whenHandedOver == NOW.replace(hour=9, minute=0)
    assert found.subject.reference == "Patient/p1"
    assert found.performer[0].actor.display == "RPh 1"
    assert (found.location.display, found.destination.display) == ("point 1", "W3")
    assert (found.receiver[0].display, found.note[0].text) == ("W3 desk", "keep cool")


def test_statuses_and_their_reasons():
    """A reason goes with those that need one, and with no other; HL7 lines have no references."""
    given_ = Given(item=Item(id="O1^CPOE", patient="P1", drug="D"), quantity=1, prepared_at=NOW)
    for status in ("preparation", "in-progress", "completed"):
        found = MedicationDispense.model_validate(medication_dispense(given_, NOW, status=status))
        assert (found.status, found.statusReasonCodeableConcept) == (status, None)
    for status in ("on-hold", "declined", "stopped"):
        document = medication_dispense(given_, NOW, status=status, reason="out of stock")
        found = MedicationDispense.model_validate(document)
        assert found.statusReasonCodeableConcept.text == "out of stock"
        assert found.authorizingPrescription[0].identifier.value == "O1^CPOE"
        with pytest.raises(ValueError, match="reason: expected a reason"):
            medication_dispense(given_, NOW, status=status)
    with pytest.raises(ValueError, match="status: expected one of preparation"):
        medication_dispense(given_, NOW, status="done")
    Bundle.model_validate(dispense_bundle([given_, given_], NOW))
