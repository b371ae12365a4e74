"""FHIR R4 and R4B, as far as a pharmacy's machine needs it.

`read_requests` takes orders out of MedicationRequest resources, `medication_dispense` tells what
was given out. Refusals are `FhirError`, with the path in the document.
"""

from wardwise.io.fhir.dispense import dispense_bundle, medication_dispense
from wardwise.io.fhir.requests import Reading, Unplanned, parse_requests, read_requests
from wardwise.io.fhir.tree import FhirError

__all__ = [
    "FhirError",
    "Reading",
    "Unplanned",
    "dispense_bundle",
    "medication_dispense",
    "parse_requests",
    "read_requests",
]
