"""Batches of augmented images: a pure function of seed, epoch and step.

An item of the loader's dataset is a whole batch, and its number is the step: so it does not
matter which worker makes it, a run goes on at any step, and the last, smaller batch is kept. The
order of an epoch is drawn from (base seed, epoch); several processes share out the samples in
turns, or the pairs where samples are mixed in pairs, so that who is mixed with whom does not
depend on their number.
"""

# Shapes: N samples of a source, B samples of a batch, S side of a view

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from weightwise.images.decode import Decoding, Note, Pixels, Report, decode
from weightwise.images.mix import Mix, Mixing, mix_pairs
from weightwise.images.randomness import sample_seeds

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from weightwise.images.shards import Sample
    from weightwise.images.sources import Source
    from weightwise.images.transform import Transform

# Seeds of samples from base seed, epoch and keys.
SeedFunction: TypeAlias = Callable[[int, int, Sequence[str]], Iterable[int]]
NO_LABEL = -1


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images of one step.

    Parameters
    ----------
    step
        Number of the step in its epoch.
    keys
        Names of the samples.
    numbers
        Numbers in the source, int64, (B,).
    seeds
        Seeds of the augmentation, int64, (B,).
    labels
        Classes, int64, (B,); -1 where there is none.
    views
        Images x_BCSS, float32, one tensor a view; mixed if ``mixing`` is there.
    mixing
        Partners and shares, where samples are mixed.
    notes
        What was odd, and which samples were left out.
    """

    step: int
    keys: tuple[str, ...]
    numbers: Tensor
    seeds: Tensor
    labels: Tensor
    views: tuple[Tensor, ...]
    mixing: Mixing | None
    notes: tuple[Note, ...]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How samples become batches.

    Parameters
    ----------
    batch_size
        Samples B of a step of this process; even where samples are mixed.
    base_seed
        Seed of order and augmentation.
    is_shuffled
        Whether the order is drawn; else it is that of the source.
    num_workers
        Processes that decode and augment; 0 for this one.
    process, num_processes
        Which of how many processes this is.
    """

    batch_size: int = 128
    base_seed: int = 0
    is_shuffled: bool = True
    num_workers: int = 0
    process: int = 0
    num_processes: int = 1

    def __post_init__(self) -> None:
        for name, low in (
            ("batch_size", 1), ("base_seed", 0), ("num_workers", 0), ("num_processes", 1),
        ):  # fmt: skip
            if getattr(self, name) < low:
                raise ValueError(f"{name}: expected at least {low}, got {getattr(self, name)}")
        if not 0 <= self.process < self.num_processes:
            raise ValueError(f"process: expected 0 to {self.num_processes - 1}, got {self.process}")


class ImageLoader:
    """Batches of a source.

    Parameters
    ----------
    source
        Samples by number.
    transform
        From images to tensors.
    config
        How samples become batches.
    mix
        How neighbours in the order are mixed; not at all by default.
    decoding
        What is decoded.
    seeds_of
        Seeds of samples from base seed, epoch and keys.

    Attributes
    ----------
    report
        What the batches so far told of broken and odd images.

    Raises
    ------
    ValueError
        If samples are mixed and the batch size is odd.
    """

    def __init__(
        self, source: Source, transform: Transform, config: LoaderConfig, mix: Mix | None = None,
        decoding: Decoding | None = None, seeds_of: SeedFunction = sample_seeds,
    ) -> None:  # fmt: skip
        if mix is not None and config.batch_size % 2:
            raise ValueError(
                f"batch_size: expected an even number to mix pairs, got {config.batch_size}"
            )
        self._source = source
        self._config = config
        self._maker = BatchMaker(
            transform=transform, mix=mix, decoding=decoding or Decoding(), seeds_of=seeds_of,
            base_seed=config.base_seed,
        )  # fmt: skip
        self._unit = 1 if mix is None else 2
        self.report = Report()

    @property
    def num_steps(self) -> int:
        """Steps of this process in an epoch; the last one may be smaller."""
        config, total = self._config, len(self._source)
        num_units = math.ceil(total / self._unit)
        count = self._unit * len(range(config.process, num_units, config.num_processes))
        if num_units and (num_units - 1) % config.num_processes == config.process:
            count -= self._unit * num_units - total  # the last unit may be smaller
        return math.ceil(count / config.batch_size)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Numbers of the samples of this process.

        Parameters
        ----------
        epoch
            Number of the epoch, at least 0.
        """
        config = self._config
        order_N = np.arange(len(self._source))
        if config.is_shuffled:
            state = np.random.SeedSequence((config.base_seed, epoch))
            order_N = np.random.Generator(np.random.PCG64(state)).permutation(order_N)
        owner_N = np.arange(len(order_N)) // self._unit % config.num_processes
        found_N: NDArray[np.int64] = order_N[owner_N == config.process]
        return found_N

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Go through an epoch.

        Parameters
        ----------
        epoch
            Number of the epoch, at least 0.
        start_step
            First step, to go on where a run stopped.

        Yields
        ------
        Batch
            In the order of the steps, whatever the number of workers.
        """
        steps = _Steps(self._source, self._maker, self.order(epoch), self._config, epoch)
        numbers = range(start_step, len(steps))
        batches: Iterable[Batch] = (
            map(steps.__getitem__, numbers)
            if not self._config.num_workers
            # A generator of its own, or the loader would draw from the global one.
            else DataLoader(
                steps, batch_size=None, sampler=numbers, num_workers=self._config.num_workers,
                generator=torch.Generator(),
            )
        )  # fmt: skip
        for batch in batches:
            self.report.add(len(batch), batch.notes)
            yield batch


@dataclass(frozen=True, kw_only=True)
class BatchMaker:
    """From the files of some samples to a batch.

    Parameters
    ----------
    transform, mix, decoding, seeds_of, base_seed
        As in `ImageLoader`.
    """

    transform: Transform
    mix: Mix | None
    decoding: Decoding
    seeds_of: SeedFunction
    base_seed: int

    def make(
        self, epoch: int, step: int, samples: Iterable[tuple[int, str, int | None, Pixels | Note]]
    ) -> Batch:
        """Decode, augment and mix.

        Parameters
        ----------
        epoch, step
            Place of the batch.
        samples
            Number, key, label, and the file or why it cannot be read.
        """
        notes: list[Note] = []
        kept = []
        for position, (number, key, label, data) in enumerate(samples):
            if isinstance(data, Note):
                notes.append(data)
                continue
            image, found = decode(key, data, self.decoding)
            notes += found
            if image is not None:
                kept.append((position, number, key, NO_LABEL if label is None else label, image))
        positions, numbers, keys, labels, images = map(
            list, zip(*kept, strict=True) if kept else ([],) * 5
        )
        seeds = [int(seed) for seed in self.seeds_of(self.base_seed, epoch, keys)] if keys else []
        views = self._stack(images, seeds)
        mixing = None if self.mix is None else mix_pairs(views, seeds, positions, self.mix)
        return Batch(
            step=step, keys=tuple(keys), numbers=torch.tensor(numbers, dtype=torch.int64),
            seeds=torch.tensor(seeds, dtype=torch.int64),
            labels=torch.tensor(labels, dtype=torch.int64),
            views=views, mixing=mixing, notes=tuple(notes),
        )  # fmt: skip

    def _stack(self, images: list[Image], seeds: list[int]) -> tuple[Tensor, ...]:
        views = tuple(
            torch.empty(len(images), 3, view.size, view.size) for view in self.transform.views
        )
        for row, (image, seed) in enumerate(zip(images, seeds, strict=True)):
            for x_BCSS, x_CSS in zip(views, self.transform(image, seed), strict=True):
                x_BCSS[row] = x_CSS
        return views


def stream_batches(
    samples: Iterable[Sample], maker: BatchMaker, batch_size: int, epoch: int = 0
) -> Iterator[Batch]:
    """Make batches of samples as they come.

    Parameters
    ----------
    samples
        A stream, such as `TarStream`; numbers count from 0 within it.
    maker
        From files to batches.
    batch_size
        Samples B of a batch; the last may be smaller. Even where samples are mixed.
    epoch
        Number of the epoch.

    Yields
    ------
    Batch
        In the order of the stream.
    """
    if batch_size < 1 or (maker.mix is not None and batch_size % 2):
        raise ValueError(f"batch_size: expected at least 1, and even to mix, got {batch_size}")
    rows = ((i, one.key, one.label, one.data) for i, one in enumerate(samples))
    for step in itertools.count():
        part = list(itertools.islice(rows, batch_size))
        if not part:
            return
        yield maker.make(epoch, step, part)


class _Steps(Dataset[Batch]):
    """Batches of an epoch by step."""

    def __init__(
        self, source: Source, maker: BatchMaker, order_N: NDArray[np.int64],
        config: LoaderConfig, epoch: int,
    ) -> None:  # fmt: skip
        self._source, self._maker, self._order_N = source, maker, order_N
        self._batch_size, self._epoch = config.batch_size, epoch

    def __len__(self) -> int:
        return math.ceil(len(self._order_N) / self._batch_size)

    def __getitem__(self, step: int) -> Batch:
        start = step * self._batch_size
        numbers = self._order_N[start : start + self._batch_size].tolist()
        return self._maker.make(self._epoch, step, map(self._read, numbers))

    def _read(self, number: int) -> tuple[int, str, int | None, Pixels | Note]:
        key = self._source.key(number)
        try:
            data: Pixels | Note = self._source.load(number)
        except OSError as error:
            data = Note(key=key, kind="unreadable", detail=str(error), is_skipped=True)
        return number, key, self._source.label(number), data
