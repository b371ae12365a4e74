"""Keys and values kept from earlier tokens, so that a new token costs one step.

Memory is taken once, for the full capacity, and written front to back: no tensor grows or is
copied when a token comes. Only the number of valid tokens changes, so taking tokens back is a
matter of lowering it. Each kind of attention brings the cache of its layer; what they have in
common is `LayerCache`.
"""

# Shapes: B batch, H key-value heads, T new tokens, S tokens so far, E features per head

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class LayerCache(Protocol):
    """What the model asks of the cache of one layer."""

    @property
    def num_bytes(self) -> int:
        """Bytes allocated."""


class KeyValueCache:
    """Keys and values of one grouped-query attention layer.

    Parameters
    ----------
    batch, heads, capacity, width
        Sizes: sequences, key-value heads, tokens and features per head.
    dtype, device
        Kind and place of the stored elements.
    """

    def __init__(
        self,
        *,
        batch: int,
        heads: int,
        capacity: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (batch, heads, capacity, width)
        self.key_BHSE = torch.zeros(shape, dtype=dtype, device=device)
        self.value_BHSE = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def num_bytes(self) -> int:
        """Bytes allocated for keys and values."""
        return self.key_BHSE.nbytes + self.value_BHSE.nbytes

    def write(self, start: int, key_BHTE: Tensor, value_BHTE: Tensor) -> tuple[Tensor, Tensor]:
        """Store new tokens from position ``start`` on and return all tokens so far.

        Parameters
        ----------
        start
            Tokens that came before.
        key_BHTE, value_BHTE
            Keys and values of the new tokens.

        Returns
        -------
        tuple
            Views of the keys and values of tokens 0 to ``start + T``, shape (B, H, S, E).
        """
        end = start + key_BHTE.shape[2]
        self.key_BHSE[:, :, start:end] = key_BHTE
        self.value_BHSE[:, :, start:end] = value_BHTE
        return self.key_BHSE[:, :, :end], self.value_BHSE[:, :, :end]


class Cache:
    """The caches of all layers and the number of tokens that they hold.

    Parameters
    ----------
    layers
        One cache per layer, from first to last; ``None`` for a layer that shares an earlier one's.
    batch
        Number of sequences.
    capacity
        Most tokens per sequence.

    Attributes
    ----------
    length
        Tokens stored so far. It moves after all layers have written, so that a pass that stops
        half-way leaves the cache as it was.
    """

    def __init__(self, layers: Sequence[LayerCache | None], *, batch: int, capacity: int) -> None:
        self.layers = tuple(layers)
        self.batch = batch
        self.capacity = capacity
        self.length = 0

    @property
    def num_bytes(self) -> int:
        """Bytes allocated over all layers."""
        return sum(layer.num_bytes for layer in self.layers if layer is not None)

    def check_room(self, batch: int, num_tokens: int) -> None:
        """Refuse input that does not fit.

        Raises
        ------
        ValueError
            If the batch differs or the tokens exceed the capacity.
        """
        if batch != self.batch:
            raise ValueError(f"token_BT: expected a batch of {self.batch}, got {batch}")
        if self.length + num_tokens > self.capacity:
            raise ValueError(
                f"token_BT: expected at most {self.capacity - self.length} more tokens "
                f"(cache holds {self.length} of {self.capacity}), got {num_tokens}"
            )

    def crop(self, length: int) -> None:
        """Forget all but the first ``length`` tokens.

        Raises
        ------
        ValueError
            If ``length`` is not within 0 and the present length.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"length: expected 0 to {self.length}, got {length}")
        self.length = length

    def reset(self) -> None:
        """Forget all tokens and keep the memory."""
        self.length = 0
