"""What is kept from earlier tokens, so that a new token costs one step.

Memory is taken once, for the full capacity, and the token at position p of a row stands in column
p, whatever the other rows do: no tensor grows or is copied when a token comes. Only the rows'
lengths change, so taking tokens back is a matter of lowering them, and a row whose text has ended
can be given to another. Each kind of attention brings the cache of its layer, a `LayerCache`,
which is a handful of named `Store`s: keys and values, or latents and rotary keys, plain or as
codes. As all of them have rows first and tokens next to last, what is done to rows is written
once, in `Cache`, for every kind.

Behind a row's length stands what padding or an earlier text left. No query sees it, because it
sees the columns up to its own position. But zero times infinity is no zero, so `Cache.clear`
wipes a row before it is given away.
"""

# Shapes: B batch, H key-value heads, T new tokens, S tokens so far, E features per head,
# R new tokens of all rows that count

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import torch

from weightwise.lm.store import RowStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from weightwise.lm.store import Store


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


class LayerCache:
    """What one layer, or one group of layers that share, keeps.

    Parameters
    ----------
    stores
        Its memory, by name.
    """

    def __init__(self, stores: Mapping[str, Store]) -> None:
        self.stores = dict(stores)

    @property
    def num_bytes(self) -> int:
        """Bytes allocated."""
        return sum(store.memory.nbytes for store in self.stores.values())

    def mapped(self, change: Callable[[Store], Store]) -> Self:
        """The same kind of cache over other memory."""
        other = copy.copy(self)
        other.stores = {name: change(store) for name, store in self.stores.items()}
        return other


class KeyValueCache(LayerCache):
    """Keys and values of one grouped-query attention layer.

    Parameters
    ----------
    key_BHSE, value_BHSE
        Memory for every token that may come.
    """

    def __init__(self, key_BHSE: Tensor, value_BHSE: Tensor) -> None:
        super().__init__({"key": RowStore(key_BHSE), "value": RowStore(value_BHSE)})

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
            Keys and values up to the longest row's last token, shape (B, H, S, E); views of the
            memory unless it is paged.
        """
        key, value = self.stores["key"], self.stores["value"]
        key.write(span, key_BHTE)
        value.write(span, value_BHTE)
        return key.read(span.end), value.read(span.end)


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
        """Bytes allocated over all layers, scales and padding included."""
        return sum(layer.num_bytes for layer in self.layers if layer is not None)

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

    def reserve(self, row: int, num_tokens: int) -> bool:  # noqa: ARG002, each row has its own
        """Whether a row has memory for so many tokens in all; taken now where rows share it."""
        return num_tokens <= self.capacity

    def free_tokens(self, num_rows: int) -> int:  # noqa: ARG002, each row has its own
        """Tokens for which a row has memory, if only the first rows are to keep theirs."""
        return self.capacity

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
        layers = self._mapped(lambda store: RowStore(store.memory[first:end]))
        part = Cache(layers, batch=end - first, capacity=self.capacity)
        part.length_B, part._written_B = self.length_B[first:end], self._written_B[first:end]
        return part

    def swap(self, first: int, second: int) -> None:
        """Let two rows change places."""
        if first == second:
            return
        pair = [first, second]
        written = int(self._written_B[pair].max())
        for memory in self._memories():
            memory[pair, ..., :written, :] = memory[pair[::-1], ..., :written, :]
        for per_row in (self.length_B, self._written_B):
            per_row[pair] = per_row[pair].flip(0)

    def clear(self, row: int, keep: int = 0) -> int:
        """Forget all but the first ``keep`` tokens of a row, for a new text in its place.

        Returns
        -------
        int
            Tokens that are kept; fewer where the last of them stand in memory that others use.
        """
        written = int(self._written_B[row])
        for memory in self._memories():
            memory[row, ..., keep:written, :] = 0
        self.length_B[row] = self._written_B[row] = keep
        return keep

    def copy(self, source: int, target: int, length: int) -> None:
        """Let a row begin with the first ``length`` tokens of another, and hold nothing else."""
        self.clear(target)
        for memory in self._memories():
            memory[target, ..., :length, :] = memory[source, ..., :length, :]
        self.length_B[target] = self._written_B[target] = length

    def reorder(self, index_B: Tensor) -> None:
        """Let every row become a copy of row ``index_B[row]``, as beams do.

        Raises
        ------
        ValueError
            If there is not one row's number for each row.
        """
        if index_B.shape != (self.batch,):
            raise ValueError(f"index_B: expected shape ({self.batch},), got {tuple(index_B.shape)}")
        self._check_index(index_B)
        moved_R = (index_B != torch.arange(self.batch)).nonzero().squeeze(1)
        if len(moved_R):
            source_R = index_B[moved_R]
            written = int(self._written_B[torch.cat((moved_R, source_R))].max())
            for memory in self._memories():
                memory[moved_R, ..., :written, :] = memory[source_R, ..., :written, :]
            for per_row in (self.length_B, self._written_B):
                per_row.copy_(per_row[index_B])

    def select(self, index_B: Tensor) -> Cache:
        """New cache whose rows are copies of these rows, which may repeat.

        Raises
        ------
        ValueError
            If the index is empty or a row does not exist.
        """
        self._check_index(index_B)
        layers = self._mapped(lambda store: RowStore(store.read(self.capacity)[index_B]))
        chosen = Cache(layers, batch=len(index_B), capacity=self.capacity)
        chosen.length_B, chosen._written_B = self.length_B[index_B], self._written_B[index_B]
        return chosen

    def grown(self, capacity: int) -> Cache:
        """New cache of the same tokens with room for more, ``capacity`` of them in a row."""

        def enlarge(store: Store) -> Store:
            kept = store.read(self.capacity)
            larger = kept.new_zeros(*kept.shape[:-2], capacity, kept.shape[-1])
            larger[..., : self.capacity, :] = kept
            return RowStore(larger)

        larger = Cache(self._mapped(enlarge), batch=self.batch, capacity=capacity)
        larger.length_B, larger._written_B = self.length_B, self._written_B
        return larger

    def repeat(self, times: int) -> Cache:
        """New cache with every row so many times, copies side by side; ``times`` at least 1."""
        return self.select(torch.arange(self.batch).repeat_interleave(times))

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

    def to(self, device: torch.device | str) -> Cache:
        """The same tokens in the memory of another device, such as the host's to make room."""
        layers = self._mapped(lambda store: RowStore(store.read(self.capacity).to(device)))
        moved = Cache(layers, batch=self.batch, capacity=self.capacity)
        moved.length_B, moved._written_B = self.length_B.clone(), self._written_B.clone()
        return moved

    def _memories(self) -> list[Tensor]:
        layers = [layer for layer in self.layers if layer is not None]
        return [store.memory for layer in layers for store in layer.stores.values()]

    def _mapped(self, change: Callable[[Store], Store]) -> list[LayerCache | None]:
        return [None if layer is None else layer.mapped(change) for layer in self.layers]

    def _check_index(self, index_B: Tensor, *, is_whole: bool = False) -> None:
        if is_whole and index_B.shape != (self.batch,):
            shape = tuple(index_B.shape)
            raise ValueError(f"index_B: expected shape ({self.batch},), got {shape}")
        if not len(index_B) or not 0 <= int(index_B.min()) <= int(index_B.max()) < self.batch:
            raise ValueError(
                f"index_B: expected rows 0 to {self.batch - 1}, got {index_B.tolist()}"
            )
