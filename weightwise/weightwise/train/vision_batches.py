"""Micro-batches of images: which images a process sees in a step, on from any step.

An epoch's order is drawn from (seed, epoch). Step s takes the images B s to B s + B - 1 of it; they
are cut into micro-batches of m, and of P processes process p takes the micro-batches a P + p. So
which images go through the model together depends on m and not on P, as for language models. What
is left at the end of an epoch and does not fill a step is seen in another one.

With r repeats (batch augmentation, Hoffer et al., arXiv 1901.09335, in the form of DeiT's code)
each image comes r times in a row and the epoch ends after as many as there are: it sees one in r
images. The copies of a step then stand B / r apart, so that a pair that is mixed is not of one
image. Each copy has a seed of its own.
"""

# Shapes: N images, B images of a step

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

from weightwise.images import Decoding, ImageLoader, LoaderConfig, Mix, Report, Subset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from weightwise.images import Batch, Source, Transform
    from weightwise.images.decode import Pixels
    from weightwise.images.loader import SeedFunction
    from weightwise.train.parallel import World


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How images become micro-batches.

    Parameters
    ----------
    seed
        Seed of order and augmentation.
    batch_size, micro_batch_size
        Images B of a step and m of a micro-batch.
    repeats
        How often r an image comes in an epoch, at least 1.
    num_workers
        Processes that decode and augment; 0 for none.
    mix
        How pairs are mixed; ``None`` for not at all.
    decoding
        What is decoded.

    Raises
    ------
    ValueError
        If samples are mixed and m is odd.
    """

    seed: int
    batch_size: int
    micro_batch_size: int
    repeats: int = 1
    num_workers: int = 0
    mix: Mix | None = None
    decoding: Decoding = field(default_factory=Decoding)

    def __post_init__(self) -> None:
        if self.mix is not None and self.micro_batch_size % 2:
            raise ValueError(
                f"train.micro_batch_size: expected an even number with mixing, got "
                f"{self.micro_batch_size}"
            )

    def steps_per_epoch(self, num_images: int) -> int:
        """Full steps of an epoch.

        Raises
        ------
        ValueError
            If there is none.
        """
        if num_images < self.batch_size:
            raise ValueError(
                f"train.batch_size: expected at most the number of images {num_images}, got "
                f"{self.batch_size}"
            )
        return num_images // self.batch_size


class MicroBatches:
    """The micro-batches of one process, step by step.

    Parameters
    ----------
    source, transform, seeds_of
        As for `weightwise.images.ImageLoader`.
    plan
        How they are cut.
    world
        Processes that share them.

    Attributes
    ----------
    report
        What was odd about images, and which were left out, in this process.
    """

    def __init__(
        self, source: Source, transform: Transform, seeds_of: SeedFunction, plan: BatchPlan,
        world: World,
    ) -> None:  # fmt: skip
        self._source, self._transform, self._seeds_of = source, transform, seeds_of
        self._plan, self._world = plan, world
        self.steps_per_epoch = plan.steps_per_epoch(len(source))
        self.report = Report()
        self._all = ImageLoader(source, transform, LoaderConfig(base_seed=plan.seed))
        self._next_step = -1
        self._batches: Iterator[Batch] = iter(())

    def take(self, step: int) -> tuple[int, list[Batch]]:
        """Micro-batches of a step.

        Parameters
        ----------
        step
            Number of the step, from 1.

        Returns
        -------
        tuple
            Number of the epoch, from 0, and the micro-batches of this process.
        """
        epoch, inner = divmod(step - 1, self.steps_per_epoch)
        if step != self._next_step or inner == 0:
            self._batches = self._open(epoch, inner)
        self._next_step = step + 1
        batches = [next(self._batches) for _ in range(self._rounds)]
        for batch in batches:
            self.report.add(len(batch), batch.notes)
        return epoch, batches

    @property
    def _rounds(self) -> int:
        return self._plan.batch_size // (self._plan.micro_batch_size * self._world.size)

    def _open(self, epoch: int, inner: int) -> Iterator[Batch]:
        plan = self._plan
        shape = (self.steps_per_epoch * self._rounds, self._world.size, plan.micro_batch_size)
        place_N = self._places()[: int(np.prod(shape))]
        own_N = place_N.reshape(shape)[:, self._world.rank].reshape(-1)
        number_N = self._all.order(epoch)[own_N // plan.repeats]
        config = LoaderConfig(
            batch_size=plan.micro_batch_size, base_seed=plan.seed, is_shuffled=False,
            num_workers=plan.num_workers,
        )  # fmt: skip
        part = cast("Source", Subset(source=self._source, numbers=number_N))
        if plan.repeats > 1:
            part = Copies(source=part, copies=own_N % plan.repeats)
        loader = ImageLoader(part, self._transform, config, plan.mix, plan.decoding, self._seeds_of)
        return loader.epoch(epoch, inner * self._rounds)

    def _places(self) -> NDArray[np.int64]:
        """Places in an order with repeats, r for each image, in which images of a step stand."""
        place_N = np.arange(len(self._source))
        batch = self._plan.batch_size
        # Within a step: all first copies, all second ones, and so on.
        return place_N[np.lexsort((place_N, place_N % self._plan.repeats, place_N // batch))]


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Samples some of which are the same image; the key of a copy says which one it is.

    Parameters
    ----------
    source
        The images.
    copies
        Number of the copy for each sample, from 0, (N,).
    """

    source: Source
    copies: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.source)

    def key(self, number: int) -> str:
        """Name of the image; of copies from the second on with ``*1`` and so on behind it."""
        copy = int(self.copies[number])
        return self.source.key(number) + (f"*{copy}" if copy else "")

    def label(self, number: int) -> int | None:
        """Class of the image."""
        return self.source.label(number)

    def load(self, number: int) -> Pixels:
        """The image."""
        return self.source.load(number)
