"""Why a message is refused, in the protocol's own words."""

from __future__ import annotations

from enum import StrEnum

from wardwise.errors import MAX_PROBLEM

MAX_ID = 64


class Reason(StrEnum):
    """What the sender of a refused message is told (WWKS 2 rev. 6.22, 6.4.1)."""

    SYNTAX_ERROR = "SyntaxError"
    NOT_SUPPORTED = "NotSupported"
    DATA_ERROR = "DataError"
    TOO_MANY_REQUESTS = "TooManyRequests"


class MessageError(ValueError):
    """A message that cannot be taken, in one line.

    Attributes
    ----------
    reason
        Kind of trouble.
    message_id
        Id of the refused message where it could be read, else empty.
    """

    def __init__(self, reason: Reason, problem: str, *, message_id: str = "") -> None:
        self.reason = reason
        self.message_id = message_id if len(message_id) <= MAX_ID else ""
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in problem)
        super().__init__(text if len(text) <= MAX_PROBLEM else f"{text[: MAX_PROBLEM - 3]}...")
