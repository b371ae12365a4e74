"""Messages out of a stream of bytes, as they arrive.

A message ends with the closing ``WWKS`` tag, wherever the network has cut it. Inside of CDATA and
comments such a tag means nothing: a refused message is quoted that way.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from wardwise.errors import InputError
from wardwise.io.files import MAX_BYTES as MAX_FILE_BYTES
from wardwise.io.wwks2.envelope import Envelope, parse
from wardwise.io.wwks2.errors import MessageError, Reason
from wardwise.io.wwks2.xml import MAX_BYTES

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

_END = rb"</WWKS[ \t\r\n]{0,8}>"
_MARKS = re.compile(_END + rb"|<!\[CDATA\[|<!--")
_ONLY_END = re.compile(_END)
_CLOSING = {b"<![CDATA[": re.compile(rb"\]\]>"), b"<!--": re.compile(rb"-->")}
_LONGEST = 16  # a mark may be cut in two
_CHUNK = 65536


class Splitter:
    """Cuts a stream of bytes into messages.

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
        self._scanned = 0
        self._inside: re.Pattern[bytes] | None = None
        self._is_passing = False

    def feed(self, data: bytes) -> Iterator[bytes | MessageError]:
        """Take bytes, give each message that is complete, or why one was refused."""
        self._kept += data
        while True:
            pattern = _ONLY_END if self._is_passing else self._inside or _MARKS
            match = pattern.search(self._kept, self._scanned)
            if match is None:
                break
            self._scanned = match.end()
            if self._inside is not None:
                self._inside = None
            elif not match[0].startswith(b"</"):
                self._inside = _CLOSING[match[0]]
            else:
                yield from self._cut(match.end())
        self._scanned = max(self._scanned, len(self._kept) - _LONGEST)
        if self._is_passing:
            self._forget()
        elif len(self._kept) > self._max_bytes:
            self._is_passing, self._inside = True, None
            yield self._too_long()
            self._forget()

    @property
    def pending_bytes(self) -> int:
        """Bytes of a message that is not complete."""
        return len(self._kept)

    def _cut(self, end: int) -> Iterator[bytes | MessageError]:
        message = bytes(self._kept[:end]).strip().removeprefix(b"\xef\xbb\xbf")
        del self._kept[:end]
        self._scanned = 0
        if self._is_passing:
            self._is_passing = False  # this was the rest of a message that is refused already
        elif end > self._max_bytes:
            yield self._too_long()
        else:
            yield message

    def _forget(self) -> None:
        del self._kept[: max(0, len(self._kept) - _LONGEST)]
        self._scanned = 0

    def _too_long(self) -> MessageError:
        problem = f"message: expected at most {self._max_bytes} bytes, got more"
        return MessageError(Reason.SYNTAX_ERROR, problem)


def read_log(path: str | os.PathLike[str]) -> Iterator[Envelope]:
    """Messages of a file with one after the other, as robots and gateways log them.

    Raises
    ------
    InputError
        If the file cannot be read, or naming the number of the first message that is refused.
    """
    splitter, number = Splitter(), 0
    for chunk in _chunks(path):
        for part in splitter.feed(chunk):
            number += 1
            try:
                if isinstance(part, MessageError):
                    raise part
                yield parse(part)
            except MessageError as error:
                raise InputError(path, str(error), field=f"message {number}") from error


def count_kinds(envelopes: Iterable[Envelope]) -> Counter[str]:
    """How many messages there are of each kind."""
    return Counter(type(envelope.message).__name__ for envelope in envelopes)


def _chunks(path: str | os.PathLike[str]) -> Iterator[bytes]:
    size = 0
    try:
        with open(path, "rb") as file:  # noqa: PTH123, a path or its text
            while chunk := file.read(_CHUNK):
                size += len(chunk)
                if size > MAX_FILE_BYTES:
                    raise InputError(path, f"expected at most {MAX_FILE_BYTES} bytes, got more")
                yield chunk
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise InputError(path, f"expected a readable file, got: {reason}") from error
