"""HL7 v2.5.1, the messages between a hospital's systems, as far as a pharmacy's machine needs it.

`parse` reads any message; `read_items` takes orders out of RDE^O11, `answer` acknowledges them and
`write_dispensed` tells what was given out (RDS^O13). `Splitter` and `framed` are for MLLP,
`split_file` for files. Refusals are `Hl7Error`.
"""

from wardwise.io.hl7.answers import answer, read_answer
from wardwise.io.hl7.dispense import write_dispensed
from wardwise.io.hl7.errors import Code, Hl7Error
from wardwise.io.hl7.message import Message, Segment, parse
from wardwise.io.hl7.orders import read_items
from wardwise.io.hl7.stream import Splitter, framed, split_file

__all__ = [
    "Code",
    "Hl7Error",
    "Message",
    "Segment",
    "Splitter",
    "answer",
    "framed",
    "parse",
    "read_answer",
    "read_items",
    "split_file",
    "write_dispensed",
]
