"""What the client must not forget: which outputs it has asked for, and how they ended.

Each event is a line of a journal, written before anything is sent or told. A client that is killed
and started again with the same journal gives the outcomes of before, and goes on with the outputs
that have not ended: it asks the robot about each that it may have sent before it sends it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wardwise.dispenser.orders import Outcome
from wardwise.io.wwks2 import parse, write
from wardwise.io.wwks2.messages import OutputMessage, OutputRequest
from wardwise.io.wwks2.parts import OutputDetails
from wardwise.journal import Journal, replay

if TYPE_CHECKING:
    import os

SCHEMA = "wardwise/robot-client/1"


class Memory:
    """Outputs by id, kept in a journal if there is one.

    Parameters
    ----------
    device
        Number of the client, by which the robot knows its outputs.
    path
        The journal; made if there is none. None: nothing is kept.

    Attributes
    ----------
    requests, outcomes, sent, cancelled
        What was asked for, how it ended, what the robot may know, and what is no longer wanted.

    Raises
    ------
    InputError
        If the journal is damaged, or not one of a client with this number.
    """

    def __init__(self, device: int, path: str | os.PathLike[str] | None = None) -> None:
        self._device = device
        self.requests: dict[str, OutputRequest] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.sent: set[str] = set()
        self.cancelled: set[str] = set()
        self._count = 0
        self._journal = None if path is None else Journal(path)
        if path is None or self._journal is None:
            return
        try:
            self._resume(path, device)
        except BaseException:
            self._journal.close()
            raise

    def ask(self, request: OutputRequest) -> None:
        """An output is wanted."""
        self._write("request", message=write(request).decode())
        self.requests[request.id] = request

    def send(self, order_id: str) -> None:
        """It is about to be sent; said again, it changes nothing."""
        if order_id not in self.sent:
            self._write("sent", id=order_id)
            self.sent.add(order_id)

    def cancel(self, order_id: str) -> None:
        """It is no longer wanted; said again, it changes nothing."""
        if order_id not in self.cancelled:
            self._write("cancel", id=order_id)
            self.cancelled.add(order_id)

    def end(self, outcome: Outcome) -> None:
        """It has ended."""
        asked = self.requests[outcome.id].details
        message = OutputMessage(
            id=outcome.id, destination=self._device, articles=outcome.articles,
            details=OutputDetails(
                output_destination=asked.output_destination, status=outcome.status
            ),
        )  # fmt: skip
        self._write("end", message=write(message).decode())
        self.outcomes[outcome.id] = outcome

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()

    def _resume(self, path: str | os.PathLike[str], device: int) -> None:
        """Live through the journal again, or begin one."""
        self._count = replay(path, self._replay)
        if not self._count:
            self._write("begin", schema=SCHEMA, device=device)

    def _write(self, event: str, **fields: Any) -> None:
        if self._journal is not None:
            self._journal.append({"n": self._count, "event": event, **fields})
            self._count += 1

    def _replay(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if (kind == "begin") != (event["n"] == 0):
            raise ValueError(f"expected a journal that begins with {SCHEMA}")
        if kind == "begin":
            found = event["schema"], event["device"]
            if found != (SCHEMA, self._device):
                raise ValueError(f"expected {SCHEMA} of device {self._device}, got {found}")
        elif kind in ("sent", "cancel"):
            known = self.sent if kind == "sent" else self.cancelled
            known.add(self.requests[event["id"]].id)
        else:
            self._replay_message(kind, parse(event["message"].encode()).message)

    def _replay_message(self, kind: str, message: object) -> None:
        if kind == "request" and isinstance(message, OutputRequest):
            self.requests[message.id] = message
        elif kind == "end" and isinstance(message, OutputMessage) and message.details.status:
            self.outcomes[self.requests[message.id].id] = Outcome(
                id=message.id, status=message.details.status, articles=message.articles
            )  # fmt: skip
        else:
            raise ValueError(f"event: expected begin, request, sent, cancel or end, got {kind!r}")
