"""What all WWKS 2 messages have, and the table of their kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Message:
    """What all messages have: an id, and the numbers of the two devices (0: not said, or all)."""

    id: str
    source: int = 0
    destination: int = 0


KINDS: dict[str, type[Message]] = {}


def kind(cls: type[Any]) -> type[Any]:
    """Enter a class of messages into the table, under the name of its element."""
    KINDS[cls.__name__] = cls
    return cls
