"""Messages out of streams and files: MLLP frames, and files with one message after the other.

The minimal lower layer protocol (HL7 v2 transport specification) puts a message between a vertical
tab and a file separator with a carriage return. What stands between two frames is noise.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from wardwise.errors import InputError, quote
from wardwise.io.files import MAX_BYTES as MAX_FILE_BYTES
from wardwise.io.hl7.errors import Code, Hl7Error
from wardwise.io.hl7.message import MAX_BYTES

if TYPE_CHECKING:
    import os

START, END = b"\x0b", b"\x1c\r"
_FIRST = re.compile(rb"(?:\A|[\r\n\x0b\x1c])[ \t]*(?=MSH)")
_BATCH = re.compile(rb"(?:\A|(?<=[\r\n\x0b]))(?:FHS|BHS|BTS|FTS)[^\r\n]*")


def framed(message: bytes) -> bytes:
    """Put a message into its frame.

    Raises
    ------
    ValueError
        If it holds a byte of the frame itself.
    """
    if START in message or END[:1] in message:
        raise ValueError("message: expected no byte 0x0b or 0x1c inside, got one")
    return START + message + END


class Splitter:
    """Cuts a stream of bytes into the messages of its frames.

    The bytes of a frame's ends stand in no text of our character sets (writers escape them), so
    that a start means a new message even where the end of the one before was lost.

    Parameters
    ----------
    max_bytes
        Longer messages are refused, and passed over without being kept, at least 64.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        if max_bytes < 64:
            raise ValueError(f"max_bytes: expected at least 64, got {max_bytes}")
        self._max_bytes = max_bytes
        self._kept = bytearray()
        self._is_inside = False
        self._is_passing = False
        self.num_noise = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes of a message that is not complete."""
        return len(self._kept)

    def feed(self, data: bytes) -> list[bytes | Hl7Error]:
        """Take bytes, give each message that is complete, or why one was refused."""
        found: list[bytes | Hl7Error] = []
        for part in re.split(rb"([\x0b\x1c])", data):
            if part == START:
                found += self._begin()
            elif part == END[:1]:
                found += self._end()
            elif part:
                found += self._keep(part)
        return found

    def _begin(self) -> list[Hl7Error]:
        is_cut_off = self._is_inside and not self._is_passing
        self._kept.clear()
        self._is_inside, self._is_passing = True, False
        problem = "expected the end of a frame, got a new one"
        return [Hl7Error(Code.SEGMENT_SEQUENCE, problem)] if is_cut_off else []

    def _end(self) -> list[bytes]:
        self.num_noise += not self._is_inside
        found = [bytes(self._kept)] if self._is_inside and not self._is_passing else []
        self._kept.clear()
        self._is_inside = self._is_passing = False
        return found

    def _keep(self, part: bytes) -> list[Hl7Error]:
        if not self._is_inside:
            self.num_noise += len(part.strip(b"\r\n"))
        elif not self._is_passing:
            if len(self._kept) + len(part) <= self._max_bytes:
                self._kept += part
                return []
            self._kept.clear()
            self._is_passing = True
            return [Hl7Error(Code.DATA_TYPE, f"expected at most {self._max_bytes} bytes, got more")]
        return []


def split_file(path: str | os.PathLike[str]) -> tuple[bytes, ...]:
    """Messages of a file that has one or many, with or without frames or batch segments.

    Raises
    ------
    InputError
        If the file cannot be read, is too large, or does not begin with a message.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123, a path or its text
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(path, f"expected a readable file, got: {reason}") from error
    if len(data) > MAX_FILE_BYTES:
        raise InputError(path, f"expected at most {MAX_FILE_BYTES} bytes, got more")
    data = _BATCH.sub(b"", data.removeprefix(b"\xef\xbb\xbf"))
    before, *messages = _FIRST.split(data)
    if before.strip(b"\r\n\t \x0b\x1c") or not messages:
        start = data.lstrip()[:20].decode("latin-1")
        problem = f"expected messages that begin with MSH, got {quote(start)}"
        raise InputError(path, problem)
    return tuple(message.strip(b"\r\n\t \x0b\x1c") for message in messages)
