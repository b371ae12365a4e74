"""Text from tokens as they come.

A character may be spread over several tokens, and a stop text over several too. So what has come
is held back as long as its last character is unfinished or its end may be the beginning of a stop
text; what has been released is never taken back, and all pieces together are the decoded whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.lm.tokenizer import Tokenizer

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """The text of one sequence of tokens.

    Parameters
    ----------
    tokenizer
        Turns tokens into text.
    stop_texts
        The text ends before the first of them.

    Attributes
    ----------
    text
        What has been released so far.
    is_stopped
        Whether a stop text has come.
    """

    def __init__(self, tokenizer: Tokenizer, stop_texts: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop_texts = stop_texts
        self._ids: list[int] = []  # since the last one that ended with a whole character
        self._num_taken = 0  # characters of these ids that were passed on
        self._held = ""
        self.text = ""
        self.is_stopped = False

    def add(self, token: int) -> None:
        """Take a token and release what it completes."""
        self._ids.append(token)
        decoded = self._tokenizer.decode(self._ids)
        whole = decoded.rstrip(UNFINISHED)
        self._release(whole[self._num_taken :])
        self._num_taken = max(self._num_taken, len(whole))
        if whole == decoded:
            self._ids, self._num_taken = [], 0

    def finish(self) -> None:
        """Release what was held back: no token follows."""
        self._release(self._tokenizer.decode(self._ids)[self._num_taken :])
        if not self.is_stopped:
            self.text += self._held
        self._ids, self._num_taken, self._held = [], 0, ""

    def _release(self, new: str) -> None:
        if self.is_stopped:
            return
        text = self._held + new
        cuts = [cut for stop in self._stop_texts if (cut := text.find(stop)) >= 0]
        if cuts:
            self.is_stopped = True
            end = min(cuts)
        else:
            end = len(text) - self._num_suspect(text)
        self.text += text[:end]
        self._held = text[end:]

    def _num_suspect(self, text: str) -> int:
        """Characters at the end that may begin a stop text."""
        lengths = (
            length
            for stop in self._stop_texts
            for length in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:length])
        )
        return max(lengths, default=0)
