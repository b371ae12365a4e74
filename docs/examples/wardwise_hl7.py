"""A prescription in HL7 becomes an order for the machine, and its sender gets an answer."""

from datetime import UTC, datetime

from wardwise.io.hl7 import Hl7Error, answer, parse, read_items
from wardwise.io.prescriptions import first_midnight, order_of

RDE = r"""
MSH|^~\&|CPOE|HOSPITAL|ROBOT|PHARMACY|20260302081500||RDE^O11^RDE_O11|4711|P|2.5.1
PID|||P1^^^HOSPITAL
PV1||I|W3^12^1
ORC|NW|A1^CPOE||RX77
RXE|1|AMOX500^Amoxicillin|1||TAB|||||20|TAB|||||||||||||||||10|TAB
TQ1|||||||20260302090000|20260302120000|A
RXR|PO
ORC|NW|A2^CPOE||RX77
RXE|1|MORPH10|1||AMP|||||1|PACK||||||||||||||||||||||||II
TQ1|||||||||S
RXR|IV
"""
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)

message = parse(RDE.encode())
items = read_items(message)
order = order_of("RX77", items, first_midnight(items))
print(f"{order.id} for {order.destination}: {order.priority}, due at {order.due_s:.0f} s")
for line in order.lines:
    print(f"  {line.quantity} x {line.drug}" + (", by hand" if line.is_manual else ""))
print(answer(message, time=NOON).decode().strip().replace("\r", "\n"))

try:
    read_items(parse(RDE.replace("|A\n", "|SOON\n").encode()))
except Hl7Error as refusal:
    print(refusal)
