"""Which tokens each step sees: a pure function of seed and step.

Windows of T + 1 tokens (inputs, and targets one further) start every T tokens. An epoch visits
every window once, in an order drawn from (seed, epoch); step s takes the next B windows, across
the end of an epoch if need be. So there is no loader state to save, and the global batch is the
same for any number of processes: they only share it out.
"""

# Shapes: W windows, B sequences, T tokens

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from weightwise.train.shards import TokenStore


def window_order(num_windows: int, seed: int, epoch: int, part: int = 0) -> NDArray[np.int64]:
    """Order of the windows in one epoch.

    Parameters
    ----------
    num_windows
        Windows W of the split.
    seed, epoch
        Both enter the generator, so epochs differ and runs repeat.
    part
        Which part of a mix it is, see `weightwise.train.mix`.

    Returns
    -------
    ndarray
        A permutation of 0 … W - 1.
    """
    generator = np.random.default_rng(
        np.random.SeedSequence((seed, epoch, part) if part else (seed, epoch))
    )
    return generator.permutation(num_windows)


class Windows:
    """Windows of fixed length over the tokens of a split.

    Parameters
    ----------
    store
        Tokens of the split.
    length
        Tokens T that a window predicts.
    split
        Name of the split, for messages.
    start_W
        First token of each window; every T tokens by default.

    Raises
    ------
    ValueError
        If there are fewer than T + 1 tokens.
    """

    def __init__(
        self,
        store: TokenStore,
        length: int,
        split: str,
        start_W: NDArray[np.int64] | None = None,
    ) -> None:
        self._store = store
        self._length = length
        self._start_W = start_W
        self.count = (store.num_tokens - 1) // length if start_W is None else len(start_W)
        if self.count < 1:
            raise ValueError(
                f"train.seq_length: expected at most {store.num_tokens - 1}, the {split} split "
                f"has {store.num_tokens} tokens, got {length}"
            )

    def read(self, window_B: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Read windows by number.

        Parameters
        ----------
        window_B
            Window numbers.

        Returns
        -------
        tuple
            Input ids and target ids, int64, each of shape (B, T).
        """
        return inputs_and_targets([self.row(int(window)) for window in window_B])

    def row(self, window: int) -> NDArray[np.int64]:
        """The T + 1 tokens of a window."""
        start = window * self._length if self._start_W is None else int(self._start_W[window])
        return self._store.read(start, self._length + 1)


def inputs_and_targets(rows: list[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Stack windows of T + 1 tokens into ids of shape (B, T) and the ids one further."""
    token_BS = torch.from_numpy(np.stack(rows))
    return token_BS[:, :-1], token_BS[:, 1:]


class BatchOrder:
    """Window numbers of every step.

    Parameters
    ----------
    num_windows
        Windows W of the training split.
    batch_size
        Sequences B of a step, over all processes.
    seed
        Seed of the run.
    part
        Which part of a mix it is, see `weightwise.train.mix`.
    """

    def __init__(self, num_windows: int, batch_size: int, seed: int, part: int = 0) -> None:
        self._num_windows = num_windows
        self._batch_size = batch_size
        self._seed = seed
        self._part = part
        self._epoch = -1
        self._order_W: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def windows(self, step: int) -> NDArray[np.int64]:
        """Window numbers of a step, counted from 1; shape (B,)."""
        first = (step - 1) * self._batch_size
        return self.at(np.arange(first, first + self._batch_size))

    def at(self, position_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Window numbers of places in the run, counted from 0 across epochs."""
        epoch_B = position_B // self._num_windows
        window_B = np.empty_like(position_B)
        for epoch in np.unique(epoch_B):
            of_epoch = epoch_B == epoch
            order_W = self._order(int(epoch))
            window_B[of_epoch] = order_W[position_B[of_epoch] % self._num_windows]
        return window_B

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            self._order_W = window_order(self._num_windows, self._seed, epoch, self._part)
            self._epoch = epoch
        return self._order_W


def evaluation_windows(num_windows: int, wanted: int) -> NDArray[np.int64]:
    """Up to ``wanted`` windows, evenly spread over a split and always the same."""
    count = min(num_windows, wanted)
    return np.arange(count) * num_windows // count
