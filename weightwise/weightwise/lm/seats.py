"""Which text stands in which row of a cache, and what texts take from each other.

Texts that are being written stand first, prompts that are being read behind them, free rows last.
A free row keeps its text until the row or its memory is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.lm.cache import Cache
    from weightwise.lm.decoder import Continuation


class Seats:
    """Rows of a cache and their texts.

    Parameters
    ----------
    cache
        Where the texts stand.
    shared_tokens
        Fewest common tokens at the beginning of two texts that are read once; ``None`` reads all.

    Attributes
    ----------
    rows
        Texts of the first rows.
    num_writing
        How many of them have been read.
    """

    def __init__(self, cache: Cache, shared_tokens: int | None) -> None:
        self.cache = cache
        self.rows: list[Continuation] = []
        self.num_writing = 0
        self._shared_tokens = shared_tokens
        self._kept: list[list[int]] = [[] for _ in range(cache.batch)]  # texts of free rows

    def has_room(self, size: int) -> bool:
        """Whether there is a free row with memory for so many tokens."""
        num_taken = len(self.rows)
        return num_taken < self.cache.batch and size <= self.cache.free_tokens(num_taken)

    def add(self, one: Continuation) -> None:
        """Give the first free row to a text, with what is there of its beginning."""
        self._seat(one)
        self.rows.append(one)
        self.take_over()

    def remove(self, one: Continuation) -> None:
        """Free the row of a text."""
        row = self.rows.index(one)
        self._hand_over(one, row)
        if row < self.num_writing:
            self.num_writing -= 1
            self.swap(row, self.num_writing)
            row = self.num_writing
        self.swap(row, len(self.rows) - 1)
        self.rows.pop()
        self._kept[len(self.rows)] = one.held

    def swap(self, first: int, second: int) -> None:
        """Let two texts change places."""
        rows = self.rows
        rows[first], rows[second] = rows[second], rows[first]
        self.cache.swap(first, second)

    def take_over(self) -> None:
        """Copy beginnings that others have read by now."""
        for row, one in enumerate(self.rows):
            if one.source is not None and one.source[0].num_held >= one.source[1]:
                self._copy(self.rows.index(one.source[0]), row, one.source[1])

    def _seat(self, one: Continuation) -> None:
        """Make the first free row ready for a text, with what is there of its beginning."""
        prompt, first = one.request.prompt, len(self.rows)
        kept = [self._common(prompt, text) for text in self._kept[first:]]
        others = [
            self._common(prompt, other.held if other.tokens else other.request.prompt)
            for other in self.rows
        ]
        # Of rows that are as good, the last one has been free for the longest time.
        best = max(range(len(kept)), key=lambda i: (kept[i], i))
        self.cache.swap(first, first + best)
        self._kept[first + best], self._kept[first] = self._kept[first], []
        most = max(others, default=0)
        is_copied = most > kept[best]
        one.num_read = one.num_shared = self.cache.clear(first, 0 if is_copied else kept[best])
        if is_copied:
            one.source = self.rows[others.index(most)], most
        last = self.cache.batch
        while not self.cache.reserve(first, len(prompt) + one.request.max_new_tokens):
            last -= 1
            self.cache.clear(last)
            self._kept[last] = []

    def _common(self, prompt: Sequence[int], text: Sequence[int]) -> int:
        """Tokens of a prompt that need not be read because a text begins with them."""
        if self._shared_tokens is None:
            return 0
        end = min(len(text), len(prompt) - 1)
        if prompt is not text:
            pairs = enumerate(zip(prompt[:end], text, strict=False))
            end = next((i for i, (one, other) in pairs if one != other), end)
        return end if end >= self._shared_tokens else 0

    def _hand_over(self, one: Continuation, row: int) -> None:
        """Let texts that wait for one that goes have what it has read; the first reads on."""
        waiting = [
            (place, other, other.source[1])
            for place, other in enumerate(self.rows)
            if other.source is not None and other.source[0] is one
        ]
        for place, other, common in waiting:
            self._copy(row, place, min(one.num_held, common))
            _, heir, most = waiting[0]
            if other is not heir and min(common, most) > other.num_read:
                other.source = heir, min(common, most)

    def _copy(self, source: int, target: int, length: int) -> None:
        one = self.rows[target]
        one.source = None
        if length:
            self.cache.copy(source, target, length)
        one.num_read = one.num_shared = length
