"""Supervised fine-tuning: chats as samples, samples packed into sequences, and the loss.

A sample is the token ids of a chat with a flag for each: whether the model learns to write it.
Every id but the first is the target of the one before it. Samples are much shorter than the
sequences that a step is made of, so several share one. They must not see each other: each is a
segment, attention stays inside of it and positions start again. What is left of a sequence
repeats its own tokens as one more segment without targets. Empty tokens would do as well for the
loss, but experts would be balanced over them too.

Which samples share a sequence is settled by first-fit decreasing: the longest first, each into
the first sequence with room. It needs at most 11/9 of the fewest sequences, and one (Dosa 2007).
"""

# Shapes: M sequences, T tokens, V vocabulary

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from weightwise.lm.chat import parse_messages
from weightwise.lm.post.records import blame, read_records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from weightwise.lm.chat import ChatTemplate, Message

IGNORED = -100  # what torch's cross-entropy leaves out


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Token ids and which of them are learnt.

    Parameters
    ----------
    ids
        At least two.
    is_learnt
        As many flags. The first id is no target, whatever its flag says.
    """

    ids: Sequence[int] | NDArray[Any]
    is_learnt: Sequence[bool] | NDArray[np.bool_]

    @property
    def num_targets(self) -> int:
        """Ids that are learnt."""
        return int(np.count_nonzero(self.is_learnt[1:]))


def read_chats(path: Path) -> Iterator[tuple[str, list[Message]]]:
    """Read chats, ``{"messages": [{"role": ..., "content": ...}, ...]}`` a line.

    Parameters
    ----------
    path
        JSON lines; other keys are left alone.

    Yields
    ------
    tuple
        Place of the chat, and its messages.

    Raises
    ------
    ValueError
        If a line is no chat; the message names file, line and field.
    """
    for place, record in read_records(path):
        with blame(place):
            yield place, parse_messages(record.get("messages"))


def encode_chat(template: ChatTemplate, messages: Sequence[Message]) -> Sample:
    """Write a chat as a sample.

    Raises
    ------
    ValueError
        If the roles are in an impossible order or nothing is answered.
    """
    ids, is_learnt = template.encode_labelled(messages)
    return Sample(ids=ids, is_learnt=is_learnt)


def fit(sample: Sample, length: int, *, is_cut: bool) -> Sample | None:
    """Make a sample fit into a sequence.

    Parameters
    ----------
    sample
        Of any length.
    length
        Tokens of a sequence; a sample may have one id more, the last target.
    is_cut
        Leave the end of a longer sample out; otherwise refuse it.

    Returns
    -------
    Sample or None
        ``None`` if nothing learnt is left.

    Raises
    ------
    ValueError
        If the sample is too long and not to be cut.
    """
    if len(sample.ids) > length + 1:
        if not is_cut:
            raise ValueError(
                f"length: expected at most {length + 1} tokens (train.seq_length + 1), "
                f"got {len(sample.ids)}; raise it, or cut with data.too_long = 'cut'"
            )
        sample = Sample(ids=sample.ids[: length + 1], is_learnt=sample.is_learnt[: length + 1])
    return sample if sample.num_targets else None


def pack(lengths: Sequence[int] | NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Put samples together by first-fit decreasing; equal lengths in their order.

    Parameters
    ----------
    lengths
        Tokens of every sample, 1 to ``capacity``.
    capacity
        Tokens of a sequence.

    Returns
    -------
    list
        Numbers of the samples in every sequence, each sample once.

    Raises
    ------
    ValueError
        If a length is out of range.
    """
    lengths = [int(length) for length in lengths]
    for number, length in enumerate(lengths):
        if not 1 <= length <= capacity:
            raise ValueError(f"lengths[{number}]: expected 1 to {capacity}, got {length}")
    # A tree whose leaves are sequences and whose nodes know the most room below them: the first
    # sequence with room for a sample is found in log n steps.
    num_leaves = 1 << max(0, len(lengths) - 1).bit_length()
    room = [capacity] * (2 * num_leaves)
    packs: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        node = 1
        while node < num_leaves:
            node = 2 * node if room[2 * node] >= lengths[number] else 2 * node + 1
        if node - num_leaves == len(packs):
            packs.append([])
        packs[node - num_leaves].append(number)
        room[node] -= lengths[number]
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return packs


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples as the model takes them, int64, each of shape (M, T).

    Parameters
    ----------
    tokens
        Inputs.
    targets
        What is learnt at each, -100 for nothing.
    segments
        Number of the segment, ascending along a sequence.
    """

    tokens: Tensor
    targets: Tensor
    segments: Tensor


def collate(rows: Sequence[Sequence[Sample]]) -> Batch:
    """Lay samples out side by side, as wide as the longest row.

    Parameters
    ----------
    rows
        Samples of each sequence.

    Returns
    -------
    Batch
        Inputs, targets and segments.
    """
    widths = [sum(len(sample.ids) - 1 for sample in row) for row in rows]
    token_MT = np.empty((len(rows), max(widths)), dtype=np.int64)
    target_MT = np.full_like(token_MT, IGNORED)
    segment_MT = np.empty_like(token_MT)
    for number, (row, width) in enumerate(zip(rows, widths, strict=True)):
        start = 0
        for segment, sample in enumerate(row):
            end = start + len(sample.ids) - 1
            ids = np.asarray(sample.ids, dtype=np.int64)
            token_MT[number, start:end] = ids[:-1]
            target_MT[number, start:end] = np.where(sample.is_learnt[1:], ids[1:], IGNORED)
            segment_MT[number, start:end] = segment
            start = end
        token_MT[number, width:] = np.resize(token_MT[number, :width], max(widths) - width)
        segment_MT[number, width:] = len(row)
    return Batch(
        tokens=torch.from_numpy(token_MT),
        targets=torch.from_numpy(target_MT),
        segments=torch.from_numpy(segment_MT),
    )


def sft_loss(logits_MTV: Tensor, target_MT: Tensor) -> Tensor:
    """Mean cross-entropy over the targets, nats per token; zero-dimensional."""
    target_MT = target_MT.to(logits_MTV.device)
    return F.cross_entropy(logits_MTV.flatten(0, 1), target_MT.flatten(), ignore_index=IGNORED)
