"""Memory for the vectors that a cache keeps: one stretch of it for each row.

`weightwise.lm.paged` has the other way, pages that rows take as they need them.
"""

# Shapes: B batch, T new tokens, S tokens so far, W features of a vector, R new tokens of all rows
# that count, ... nothing, or heads

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.lm.cache import Span


class Store(Protocol):
    """Memory for one vector of every token, or for one per head.

    Attributes
    ----------
    memory
        Rows, or pages, first; tokens next to last.
    """

    memory: Tensor

    def write(self, span: Span, new: Tensor) -> None:
        """Keep the vectors of new tokens, shape (B, ..., T, W)."""

    def read(self, num_tokens: int) -> Tensor:
        """The first tokens of all rows, shape (B, ..., S, W)."""


class RowStore:
    """A stretch of memory for each row.

    Parameters
    ----------
    memory
        Shape (B, ..., capacity, W).
    """

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory

    def write(self, span: Span, new: Tensor) -> None:
        """Keep the vectors of new tokens, shape (B, ..., T, W)."""
        if span.is_even:
            # Padding falls on columns that later tokens of its row overwrite.
            self.memory[..., span.start[0] : span.end, :] = new
            return
        row_R, new_R, position_R = span.places
        kept, added = self.memory.movedim(-2, 1), new.movedim(-2, 1)
        kept[row_R, position_R] = added[row_R, new_R].to(kept.dtype)

    def read(self, num_tokens: int) -> Tensor:
        """View of the first tokens of all rows, shape (B, ..., S, W)."""
        return self.memory[..., :num_tokens, :]
