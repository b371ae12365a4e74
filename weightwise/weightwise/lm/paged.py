"""A cache whose rows take memory as they need it: pages out of one pool.

With a stretch of memory for each row, room for the longest text is taken for every text. Here the
memory of all layers is a pool of pages of a few tokens each, and a table tells which pages hold
the tokens of a row (Kwon et al., arXiv 2309.06180). So the number of texts at a time is bounded by
the tokens that they hold together, rows change places by changing table entries, and rows that
begin with the same tokens share pages: `PagedCache.copy` counts the users of whole pages and
copies no more than the tokens of the last, broken one. A page has one writer, because a row writes
only behind its last token.

A pool is an ordinary cache, whose rows are the pages. That makes every kind of attention paged,
and all that is done to pages is done to rows of that cache. Page 0 is given to nobody: table
entries that mean no page point there, and what is read from it is masked.
"""

# Shapes: B rows, N pages of a row, P tokens of a page, T new tokens, S tokens so far,
# W features of a vector, R new tokens of all rows that count, ... nothing, or heads

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from weightwise.lm.cache import Cache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from weightwise.lm.cache import Span

PAGE_TOKENS = 32


class PageTable:
    """Which pages hold the tokens of each row.

    Parameters
    ----------
    page_BN
        Numbers of pages, int64, 0 for none.
    page_tokens
        Tokens P of a page.
    """

    def __init__(self, page_BN: Tensor, page_tokens: int) -> None:
        self.page_BN = page_BN
        self.page_tokens = page_tokens
        self._places: tuple[Span, Tensor, Tensor] | None = None

    def places(self, span: Span) -> tuple[Tensor, Tensor]:
        """Page of every new token that counts, and its place there; shapes (R,)."""
        # All layers of a pass ask for the same.
        if self._places is None or self._places[0] is not span:
            row_R, _, position_R = span.places
            page_R = self.page_BN[row_R, position_R // self.page_tokens]
            self._places = span, page_R, position_R % self.page_tokens
        return self._places[1:]


class PageStore:
    """Vectors in pages.

    Parameters
    ----------
    memory
        All pages, shape (pages, ..., P, W).
    table
        Which of them belong to the rows.
    """

    def __init__(self, memory: Tensor, table: PageTable) -> None:
        self.memory = memory
        self.table = table

    def write(self, span: Span, new: Tensor) -> None:
        """Keep the vectors of new tokens, shape (B, ..., T, W)."""
        row_R, new_R, _ = span.places
        page_R, place_R = self.table.places(span)
        kept, added = self.memory.movedim(-2, 1), new.movedim(-2, 1)
        kept[page_R, place_R] = added[row_R, new_R].to(kept.dtype)

    def read(self, num_tokens: int) -> Tensor:
        """Copy of the first tokens of all rows, shape (B, ..., S, W)."""
        page_BN = self.table.page_BN[:, : -(-num_tokens // self.table.page_tokens)]
        # Whole pages at a time are copied faster than by an index into the midst of them.
        pages = self.memory.index_select(0, page_BN.flatten()).unflatten(0, page_BN.shape)
        tokens: Tensor = pages.movedim(1, -3).flatten(-3, -2)
        return tokens[..., :num_tokens, :]


class PagedCache(Cache):
    """Rows whose tokens stand in pages of a pool.

    Parameters
    ----------
    pool
        Cache whose rows become the pages, at least 2; nobody else may use it.
    batch
        Number of rows: sequences at a time.
    capacity
        Most tokens per row; no more than all pages hold.
    """

    def __init__(self, pool: Cache, *, batch: int, capacity: int) -> None:
        capacity = min(capacity, (pool.batch - 1) * pool.capacity)
        num_pages = -(-capacity // pool.capacity)
        page_BN = torch.zeros(batch, num_pages, dtype=torch.int64, device=_memories(pool)[0].device)
        self._pool = pool
        self._users = [0] * pool.batch
        self._free = list(range(pool.batch - 1, 0, -1))
        super().__init__((), batch=batch, capacity=capacity)
        self._show(PageTable(page_BN, pool.capacity), [[] for _ in range(batch)])

    @property
    def num_bytes(self) -> int:
        """Bytes allocated: pages of all layers, and the table."""
        return self._pool.num_bytes + self._table.page_BN.nbytes

    @property
    def page_tokens(self) -> int:
        """Tokens P of a page."""
        return self._table.page_tokens

    def check_room(self, count: Sequence[int]) -> None:
        """Refuse input that does not fit; as for `Cache`, and rows must have pages for it."""
        super().check_room(count)
        for row, (held, new) in enumerate(zip(self.length_B.tolist(), count, strict=True)):
            room = len(self._pages[row]) * self.page_tokens
            if held + new > room:
                raise ValueError(
                    f"token_BT: expected at most {room - held} more tokens in row {row}, whose "
                    f"pages hold {room} (see reserve), got {new}"
                )

    def reserve(self, row: int, num_tokens: int) -> bool:
        """Give a row pages for so many tokens in all.

        Returns
        -------
        bool
            Whether it has them; if not, there were too few, and none was given.
        """
        pages = self._pages[row]
        wanted = max(0, -(-num_tokens // self.page_tokens) - len(pages))
        if num_tokens > self.capacity or wanted > len(self._free):
            return False
        for _ in range(wanted):
            pages.append(self._take())
        self._note(row)
        return True

    def free_tokens(self, num_rows: int) -> int:
        """Tokens for which a row has memory, if only the first rows are to keep theirs."""
        used = {page for pages in self._pages[:num_rows] for page in pages}
        return (len(self._users) - 1 - len(used)) * self.page_tokens

    def rows(self, first: int, end: int) -> PagedCache:
        """Cache of rows ``first`` to ``end - 1``, in the same memory: what one gets both have."""
        if not 0 <= first < end <= self.batch:
            raise ValueError(f"rows: expected some of 0 to {self.batch}, got {first} to {end}")
        if end - first == self.batch:
            return self
        part = copy.copy(self)
        part.batch = end - first
        part.length_B, part._written_B = self.length_B[first:end], self._written_B[first:end]
        table = PageTable(self._table.page_BN[first:end], self.page_tokens)
        part._show(table, self._pages[first:end])
        return part

    def swap(self, first: int, second: int) -> None:
        """Let two rows change places; no token is moved."""
        pages = self._pages
        pages[first], pages[second] = pages[second], pages[first]
        for per_row in (self.length_B, self._written_B, self._table.page_BN):
            per_row[[first, second]] = per_row[[second, first]]

    def clear(self, row: int, keep: int = 0) -> int:
        """Forget all but the first ``keep`` tokens of a row, and give back pages without any.

        Returns
        -------
        int
            Tokens that are kept: none of a broken page that others use.
        """
        whole, broken = divmod(keep, self.page_tokens)
        pages = self._pages[row]
        if broken and self._users[pages[whole]] > 1:
            keep, broken = whole * self.page_tokens, 0
        kept = whole + bool(broken)
        self._give_back(pages[kept:])
        del pages[kept:]
        if broken:
            for memory in _memories(self._pool):
                memory[pages[-1], ..., broken:, :] = 0
        self._note(row)
        self.length_B[row] = keep
        return keep

    def copy(self, source: int, target: int, length: int) -> None:
        """Let a row begin with the first ``length`` tokens of another, and hold nothing else.

        Whole pages are shared. The row must have pages for what is to come, see `reserve`, and
        gives those back that it shares now.
        """
        whole, broken = divmod(length, self.page_tokens)
        pages = self._pages[target]
        shared = self._pages[source][:whole]
        assert len(pages) * self.page_tokens >= length
        for page in shared:
            self._users[page] += 1
        self._give_back(pages[:whole])
        pages[:whole] = shared
        if broken:
            self._copy_page(self._pages[source][whole], pages[whole], broken)
        self._note(target)
        self.length_B[target] = length

    def reorder(self, index_B: Tensor) -> None:
        """Let every row become a copy of row ``index_B[row]``, with as many pages.

        Raises
        ------
        ValueError
            If there is not one row's number for each row, or too few pages are free.
        """
        self._check_index(index_B, is_whole=True)
        before = [list(pages) for pages in self._pages]
        length_B = self.length_B[index_B]
        for page in (page for row in index_B.tolist() for page in before[row]):
            self._users[page] += 1
        for pages in before:
            self._give_back(pages)
        for row, source in enumerate(index_B.tolist()):
            self._pages[row][:] = before[source]
        self.length_B.copy_(length_B)
        for row in range(self.batch):
            self._own(row, int(length_B[row]))

    def crop(self, length: int) -> None:
        """Forget all but the first ``length`` tokens of every row.

        Raises
        ------
        ValueError
            If ``length`` is not within 0 and the present length, or too few pages are free.
        """
        super().crop(length)
        for row in range(self.batch):
            self._own(row, int(self.length_B[row]))

    def _own(self, row: int, length: int) -> None:
        """Have nobody else use the pages that a row will write, from this length on."""
        pages = self._pages[row]
        first, broken = divmod(length, self.page_tokens)
        for place in range(first, len(pages)):
            page = pages[place]
            if self._users[page] > 1:
                if not self._free:
                    raise ValueError("pages: expected a free one for every row, got too few")
                pages[place] = self._take()
                self._users[page] -= 1
                if broken and place == first:
                    self._copy_page(page, pages[place], broken)
        self._note(row)

    def _take(self) -> int:
        """A free page, wiped: zero times what an earlier text left may be no zero."""
        page = self._free.pop()
        self._users[page] = 1
        for memory in _memories(self._pool):
            memory[page] = 0
        return page

    def _give_back(self, pages: Sequence[int]) -> None:
        for page in pages:
            self._users[page] -= 1
            if not self._users[page]:
                self._free.append(page)

    def _copy_page(self, source: int, target: int, length: int) -> None:
        for memory in _memories(self._pool):
            memory[target, ..., :length, :] = memory[source, ..., :length, :]

    def _note(self, row: int) -> None:
        """Write the pages of a row into the table."""
        pages = self._pages[row]
        self._table.page_BN[row] = 0
        self._table.page_BN[row, : len(pages)] = torch.tensor(pages, dtype=torch.int64)

    def _show(self, table: PageTable, pages: list[list[int]]) -> None:
        """Let the layers find their tokens by this table."""
        self._table = table
        self._pages = pages
        self.layers = tuple(
            None if one is None else one.mapped(lambda store: PageStore(store.memory, table))
            for one in self._pool.layers
        )


def _memories(pool: Cache) -> list[Tensor]:
    layers = [layer for layer in pool.layers if layer is not None]
    return [store.memory for layer in layers for store in layer.stores.values()]
