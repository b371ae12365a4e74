"""Training on several kinds of text with given shares, which may change when annealing begins.

Each part of a mix is a list of windows with an order of its own: it is visited once an epoch of its
own, however often the others come. Place p of the run (sequence p of all steps, from 0) belongs to
the first part if the whole number below share * p steps up there; the places that are left are
numbered anew and shared out to the next part, and the last part takes the rest. So after any
number of sequences each part is within one sequence of its share, at most one more for every part
before it, and the batch of a step is still a pure function of seed and step. When the shares change
after some step, only the slope of share * p does, and every part goes on where it was.

Two uses: a long-context stage takes a quarter of its sequences from inside of long documents
(arXiv 2411.02265, section 2.3.3), and annealing gives more weight to the best data (section 2.3.2).
"""

# Shapes: W windows, B sequences, P documents

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weightwise.optim.schedule import annealing_start
from weightwise.train.batches import BatchOrder, Windows, inputs_and_targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from weightwise.optim import ScheduleConfig
    from weightwise.train.data import DataConfig, PreparedData
    from weightwise.train.shards import TokenStore


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kind of text.

    Parameters
    ----------
    windows
        Its windows.
    share, late_share
        Its share of the sequences, and that after the turn, 0 to 1. Those of the last part of a
        mix are what the others leave.
    """

    windows: Windows
    share: float
    late_share: float


class MixedWindows:
    """The windows of all parts, numbered through.

    Parameters
    ----------
    parts
        At least one.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self.starts = np.cumsum([0, *(part.windows.count for part in parts)])
        self.count = int(self.starts[-1])

    def read(self, window_B: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Input and target ids as `Windows.read` gives them."""
        part_B = np.searchsorted(self.starts, window_B, side="right") - 1
        return inputs_and_targets(
            [
                self.parts[part].windows.row(int(window - self.starts[part]))
                for part, window in zip(part_B, window_B, strict=True)
            ]
        )


class MixedOrder:
    """Window numbers of every step, each part with its share.

    Parameters
    ----------
    windows
        The parts.
    batch_size
        Sequences B of a step, over all processes.
    seed
        Seed of the run.
    turn
        Step after which the late shares hold; ``None`` means never.
    """

    def __init__(
        self, windows: MixedWindows, batch_size: int, seed: int, turn: int | None = None
    ) -> None:
        self._windows = windows
        self._batch_size = batch_size
        self._turn = None if turn is None else turn * batch_size
        self._orders = [
            BatchOrder(part.windows.count, batch_size, seed, number)
            for number, part in enumerate(windows.parts)
        ]

    def windows(self, step: int) -> NDArray[np.int64]:
        """Window numbers of a step, counted from 1; shape (B,)."""
        first = (step - 1) * self._batch_size
        left_B = np.arange(self._batch_size)  # places in the batch that no part has taken yet
        place_B = np.arange(first, first + self._batch_size)  # their numbers among the left ones
        turn, rest, late_rest = self._turn, 1.0, 1.0
        found_B = np.empty_like(place_B)
        for number, part in enumerate(self._windows.parts):
            share, late_share = _of(part.share, rest), _of(part.late_share, late_rest)
            if number == len(self._windows.parts) - 1:
                share = late_share = 1.0
            before_B = _count(place_B, share, late_share, turn)
            is_own = _count(place_B + 1, share, late_share, turn) > before_B
            own = self._orders[number].at(before_B[is_own])
            found_B[left_B[is_own]] = self._windows.starts[number] + own
            left_B, place_B = left_B[~is_own], (place_B - before_B)[~is_own]
            if turn is not None:
                turn -= int(_count(np.array(turn), share, late_share, turn))
            rest, late_rest = rest - part.share, late_rest - part.late_share
        return found_B


def _of(share: float, rest: float) -> float:
    """A share of everything as one of the rest."""
    return min(1.0, share / rest) if rest > 0 else 0.0


def _count(
    place_B: NDArray[np.int64], share: float, late_share: float, turn: int | None
) -> NDArray[np.int64]:
    """Places of a part before each place."""
    early_B = place_B if turn is None else np.minimum(place_B, turn)
    late_B = place_B - early_B
    return np.floor(share * early_B + late_share * late_B).astype(np.int64)


def training_windows(
    config: DataConfig, data: PreparedData, seq_length: int
) -> Windows | MixedWindows:
    """The windows that a run learns from.

    Parameters
    ----------
    config
        Shares of the parts.
    data
        As `weightwise.train.data.prepare` gave it for these settings.
    seq_length
        Tokens T of a window.

    Raises
    ------
    ValueError
        If a part has no window of that length.
    """
    if config.long_share is None and not config.mix:
        return Windows(data.train, seq_length, "train")
    parts = [
        Part(
            windows=Windows(store, seq_length, f"train of data.mix.{number}"),
            share=one.share,
            late_share=one.share if one.anneal_share is None else one.anneal_share,
        )
        for number, (one, store) in enumerate(zip(config.mix, data.mixed, strict=True))
    ]
    usual = Windows(data.train, seq_length, "train")
    if config.long_share is not None:
        inside = windows_inside(data.train, data.tokenizer.eos_id, seq_length)
        parts.append(Part(windows=inside, share=config.long_share, late_share=config.long_share))
    return MixedWindows([*parts, Part(windows=usual, share=1.0, late_share=1.0)])


def training_order(
    windows: Windows | MixedWindows,
    schedule: ScheduleConfig,
    *,
    batch_size: int,
    num_steps: int,
    seed: int,
) -> BatchOrder | MixedOrder:
    """The order in which a run sees its windows.

    Parameters
    ----------
    windows
        See `training_windows`.
    schedule, num_steps
        Say when annealing begins.
    batch_size
        Sequences of a step.
    seed
        Seed of the run.
    """
    if isinstance(windows, MixedWindows):
        return MixedOrder(windows, batch_size, seed, annealing_start(schedule, num_steps))
    return BatchOrder(windows.count, batch_size, seed)


def windows_inside(store: TokenStore, eos_id: int, length: int) -> Windows:
    """Windows that lie inside of one document each.

    A document is long if it fills a window. The windows inside of it begin with it and follow each
    other. They cover tokens that the usual windows cover as well, at other places.

    Parameters
    ----------
    store
        Tokens of a split, an end-of-text token after each document.
    eos_id
        That token.
    length
        Tokens T of a window.

    Raises
    ------
    ValueError
        If no document is that long.
    """
    end_P = store.positions(eos_id)
    begin_P = np.concatenate([[0], end_P[:-1] + 1])
    count_P = (end_P - begin_P) // length
    if not count_P.any():
        longest = int((end_P - begin_P).max(initial=0)) + 1
        raise ValueError(
            f"data.long_share: expected documents of more than train.seq_length {length} tokens, "
            f"the longest has {longest}"
        )
    number_W = np.arange(count_P.sum()) - np.repeat(np.cumsum(count_P) - count_P, count_P)
    inside_W = np.repeat(begin_P, count_P) + number_W * length
    return Windows(store, length, "train", inside_W)
