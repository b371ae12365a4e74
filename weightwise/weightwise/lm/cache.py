"""Keys and values kept from earlier tokens, so that a new token costs one step.

Memory is taken once, for the full capacity, and the token at position p of a row stands in column
p, whatever the other rows do: no tensor grows or is copied when a token comes. Only the rows'
lengths change, so taking tokens back is a matter of lowering them, and a row whose text has ended
can be given to another. Each kind of attention brings the cache of its layer; what they have in
common is `LayerCache`.

Behind a row's length stands what padding or an earlier text left. No query sees it, because it
sees the columns up to its own position. But zero times infinity is no zero, so `Cache.clear`
wipes a row before it is given away.
"""

# Shapes: B batch, H key-value heads, T new tokens, S tokens so far, E features per head,
# R new tokens of all rows that count

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, Self

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Span:
    """Where the new tokens of one pass stand in their rows.

    Parameters
    ----------
    start
        Tokens of each row before them.
    count
        New tokens of each row. The longest row has T; the others end in padding.
    device
        Where the model computes.
    """

    start: tuple[int, ...]
    count: tuple[int, ...]
    device: torch.device

    @cached_property
    def is_even(self) -> bool:
        """Whether all rows start at the same position."""
        return self.start.count(self.start[0]) == len(self.start)

    @cached_property
    def end(self) -> int:
        """Tokens S of the row that is the longest afterwards."""
        return max(start + count for start, count in zip(self.start, self.count, strict=True))

    @cached_property
    def position(self) -> Tensor:
        """Positions of the new tokens: shape (T,) if even, else (B, 1, T) for any head."""
        step_T = torch.arange(max(self.count), device=self.device)
        if self.is_even:
            return step_T + self.start[0]
        return torch.tensor(self.start, device=self.device)[:, None, None] + step_T

    @cached_property
    def places(self) -> tuple[Tensor, ...]:
        """Row, index below T, and position of every token that is no padding; shapes (R,)."""
        rows = enumerate(zip(self.start, self.count, strict=True))
        places = [(row, i, start + i) for row, (start, count) in rows for i in range(count)]
        return torch.tensor(places, device=self.device).unbind(1)


class LayerCache(Protocol):
    """What the model asks of the cache of one layer."""

    @property
    def num_bytes(self) -> int:
        """Bytes allocated."""

    def rows(self, first: int, end: int) -> LayerCache:
        """Share the memory of rows ``first`` to ``end - 1``."""

    def swap(self, first: int, second: int, length: int) -> None:
        """Let two rows exchange their first ``length`` tokens."""

    def clear(self, row: int, length: int) -> None:
        """Zero the first ``length`` tokens of a row."""


class KeyValueCache:
    """Keys and values of one grouped-query attention layer.

    Parameters
    ----------
    key_BHSE, value_BHSE
        Memory for every token that may come.
    """

    def __init__(self, key_BHSE: Tensor, value_BHSE: Tensor) -> None:
        self.key_BHSE = key_BHSE
        self.value_BHSE = value_BHSE

    @classmethod
    def new(
        cls,
        *,
        batch: int,
        heads: int,
        capacity: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Self:
        """Take memory.

        Parameters
        ----------
        batch, heads, capacity, width
            Sizes: sequences, key-value heads, tokens and features per head.
        dtype, device
            Kind and place of the stored elements.
        """
        shape = (batch, heads, capacity, width)
        key_BHSE, value_BHSE = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        return cls(key_BHSE, value_BHSE)

    @property
    def num_bytes(self) -> int:
        """Bytes allocated for keys and values."""
        return self.key_BHSE.nbytes + self.value_BHSE.nbytes

    def write(self, span: Span, key_BHTE: Tensor, value_BHTE: Tensor) -> tuple[Tensor, Tensor]:
        """Store new tokens and return all tokens so far.

        Parameters
        ----------
        span
            Where the new tokens stand.
        key_BHTE, value_BHTE
            Keys and values of the new tokens.

        Returns
        -------
        tuple
            Views of the keys and values up to the longest row's last token, shape (B, H, S, E).
        """
        for kept, new in ((self.key_BHSE, key_BHTE), (self.value_BHSE, value_BHTE)):
            if span.is_even:
                # Padding falls on columns that later tokens of its row overwrite.
                kept[:, :, span.start[0] : span.end] = new
            else:
                row_R, new_R, position_R = span.places
                kept[row_R, :, position_R] = new[row_R, :, new_R].to(kept.dtype)
        return self.key_BHSE[:, :, : span.end], self.value_BHSE[:, :, : span.end]

    def rows(self, first: int, end: int) -> KeyValueCache:
        """Share the memory of rows ``first`` to ``end - 1``."""
        return KeyValueCache(self.key_BHSE[first:end], self.value_BHSE[first:end])

    def swap(self, first: int, second: int, length: int) -> None:
        """Let two rows exchange their first ``length`` tokens."""
        for kept in (self.key_BHSE, self.value_BHSE):
            kept[[first, second], :, :length] = kept[[second, first], :, :length]

    def clear(self, row: int, length: int) -> None:
        """Zero the first ``length`` tokens of a row."""
        self.key_BHSE[row, :, :length] = 0
        self.value_BHSE[row, :, :length] = 0


class Cache:
    """The caches of all layers and the number of tokens that each row holds.

    Parameters
    ----------
    layers
        One cache per layer, from first to last; ``None`` for a layer that shares an earlier one's.
    batch
        Number of rows: sequences at a time.
    capacity
        Most tokens per row.

    Attributes
    ----------
    length_B
        Tokens of each row, int64 on the CPU. They move after all layers have written, so that a
        pass that stops half-way leaves the cache as it was.
    """

    def __init__(self, layers: Sequence[LayerCache | None], *, batch: int, capacity: int) -> None:
        self.layers = tuple(layers)
        self.batch = batch
        self.capacity = capacity
        self.length_B = torch.zeros(batch, dtype=torch.int64)
        self._written_B = torch.zeros(batch, dtype=torch.int64)  # padding included

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return int(self.length_B.max())

    @property
    def num_bytes(self) -> int:
        """Bytes allocated over all layers."""
        return sum(layer.num_bytes for layer in self._own_layers())

    def check_room(self, count: Sequence[int]) -> None:
        """Refuse input that does not fit.

        Parameters
        ----------
        count
            New tokens of each row.

        Raises
        ------
        ValueError
            If the batch differs or the tokens exceed the capacity.
        """
        if len(count) != self.batch:
            raise ValueError(f"token_BT: expected a batch of {self.batch}, got {len(count)}")
        for held, new in zip(self.length_B.tolist(), count, strict=True):
            if held + new > self.capacity:
                raise ValueError(
                    f"token_BT: expected at most {self.capacity - held} more tokens "
                    f"(cache holds {held} of {self.capacity}), got {new}"
                )

    def advance(self, span: Span) -> None:
        """Count the tokens of a pass after all layers have written them."""
        self.length_B += torch.tensor(span.count)
        self._written_B.clamp_(min=span.end)

    def rows(self, first: int, end: int) -> Cache:
        """Cache of rows ``first`` to ``end - 1``, in the same memory: what one gets both have.

        Raises
        ------
        ValueError
            If there are no such rows.
        """
        if not 0 <= first < end <= self.batch:
            raise ValueError(f"rows: expected some of 0 to {self.batch}, got {first} to {end}")
        if end - first == self.batch:
            return self
        layers = [None if layer is None else layer.rows(first, end) for layer in self.layers]
        part = Cache(layers, batch=end - first, capacity=self.capacity)
        part.length_B, part._written_B = self.length_B[first:end], self._written_B[first:end]
        return part

    def swap(self, first: int, second: int) -> None:
        """Let two rows change places."""
        if first == second:
            return
        pair = [first, second]
        written = int(self._written_B[pair].max())
        for layer in self._own_layers():
            layer.swap(first, second, written)
        for per_row in (self.length_B, self._written_B):
            per_row[pair] = per_row[pair].flip(0)

    def clear(self, row: int) -> None:
        """Forget the tokens of a row, for a new text in its place."""
        for layer in self._own_layers():
            layer.clear(row, int(self._written_B[row]))
        self.length_B[row] = self._written_B[row] = 0

    def crop(self, length: int) -> None:
        """Forget all but the first ``length`` tokens of every row.

        Raises
        ------
        ValueError
            If ``length`` is not within 0 and the present length.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"length: expected 0 to {self.length}, got {length}")
        self.length_B.clamp_(max=length)

    def reset(self) -> None:
        """Forget all tokens and keep the memory."""
        self.length_B.zero_()

    def _own_layers(self) -> list[LayerCache]:
        return [layer for layer in self.layers if layer is not None]
