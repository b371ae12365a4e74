"""WWKS 2, the protocol between a pharmacy's IT and its storage robot (BD Rowa, rev. 6.22).

`messages` has every message as a frozen dataclass; `parse` and `write` are for its bytes, and
`Splitter` cuts a stream of bytes into messages. Refusals are `MessageError`.
"""

from wardwise.io.wwks2.envelope import Envelope, parse, write
from wardwise.io.wwks2.errors import MessageError, Reason
from wardwise.io.wwks2.messages import Message
from wardwise.io.wwks2.stream import Splitter, count_kinds, read_log

__all__ = [
    "Envelope",
    "Message",
    "MessageError",
    "Reason",
    "Splitter",
    "count_kinds",
    "parse",
    "read_log",
    "write",
]
