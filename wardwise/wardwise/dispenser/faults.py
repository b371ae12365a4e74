"""What can go wrong on the line and in the machine, on purpose."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import random

_SHARES = (
    "disconnect", "malformed", "truncated", "duplicated", "oversized", "garbled", "not_ready",
)  # fmt: skip
_END = b"</WWKS>"


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Shares from 0 to 1, and times.

    Parameters
    ----------
    disconnect
        Of messages before which the robot breaks the connection; the message is lost.
    malformed
        Of messages that the robot sends damaged.
    truncated
        Of messages whose end the robot does not send; the next message follows at once.
    duplicated
        Of messages that the robot sends twice.
    oversized
        Of messages before which the robot sends one of `oversized_bytes`.
    garbled
        Of messages that reach the robot damaged.
    not_ready
        Of outputs after which the machine stops for `not_ready_s`.
    delay_s
        Longest wait before a message is sent, in seconds of the clock; the waits are uniform.
    not_ready_s
        How long a stop lasts, in seconds of the machine.
    oversized_bytes
        At least 1.

    Raises
    ------
    ValueError
        Naming the field and its range.
    """

    disconnect: float = 0.0
    malformed: float = 0.0
    truncated: float = 0.0
    duplicated: float = 0.0
    oversized: float = 0.0
    garbled: float = 0.0
    not_ready: float = 0.0
    delay_s: float = 0.0
    not_ready_s: float = 300.0
    oversized_bytes: int = 20_000_000

    def __post_init__(self) -> None:
        for name in _SHARES:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"faults: {name}: expected 0 to less than 1, got {getattr(self, name)}"
                )
        for name in ("delay_s", "not_ready_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"faults: {name}: expected a finite number of at least 0, got {value}"
                )
        if self.oversized_bytes < 1:
            raise ValueError(
                f"faults: oversized_bytes: expected at least 1, got {self.oversized_bytes}"
            )

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Faults of a text like ``disconnect=0.01,delay-s=0.5``.

        Raises
        ------
        ValueError
            Naming the field, and what was expected.
        """
        kinds = {field.name: field.type for field in fields(cls)}
        values: dict[str, float | int] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = (word.strip() for word in part.partition("="))
            name = name.replace("-", "_")
            if name not in kinds:
                raise ValueError(f"faults: expected {', '.join(kinds)}, got {name!r}")
            try:
                values[name] = int(value) if kinds[name] == "int" else float(value)
            except ValueError as error:
                raise ValueError(f"faults: {name}: expected a number, got {value!r}") from error
        return cls(**values)  # type: ignore[arg-type]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A message with a piece cut out of its middle; the closing tag stays."""
    start = rng.randrange(1, max(2, len(data) // 2))
    stop = min(len(data) - len(_END), start + rng.randrange(1, 40))
    return data[:start] + b"<\xff" + data[max(start, stop) :]


def truncated(data: bytes, rng: random.Random) -> bytes:
    """The beginning of a message, at most up to its closing tag."""
    return data[: rng.randrange(1, max(2, len(data) - len(_END)))]
