"""The commands ``weightwise distill save`` and ``weightwise distill check``: ask a teacher."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 (the parser reads annotations)
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pydantic
import tyro
from pydantic import ConfigDict, TypeAdapter
from rich.console import Console
from rich.table import Table

from weightwise.cli.bars import Bars
from weightwise.cli.image_options import Images, open_images
from weightwise.cli.law_options import Json, print_json, require_positive, warn
from weightwise.cli.teacher_options import TeacherOptions, loader_of, teacher_of
from weightwise.cli.train import Overrides, flat, say
from weightwise.distill import SoftLabels, StoreConfig, StoreWriter, check, write
from weightwise.distill.keys import augmentation_seeds
from weightwise.distill.replay import Replay, StoredSeeds, replay_of
from weightwise.images import (
    Decoding,
    ImageLoader,
    Report,
    Subset,
    TrainTransform,
)
from weightwise.recipes.vision import load_vision_recipe
from weightwise.train.recipe import build, override
from weightwise.train.vision_config import AugmentationConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from weightwise.distill import CheckReport
    from weightwise.distill.teachers import Teacher
    from weightwise.images import LoaderConfig, Source
    from weightwise.images.loader import SeedFunction
    from weightwise.train.vision_recipe import VisionRecipe

DONE, STOPPED = 0, 1
SHOWN = 5  # images that could not be read, of which a line is told
Part = Annotated[str | None, tyro.conf.arg(metavar="NUMBER/COUNT")]


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """What is kept of an answer.

    Parameters
    ----------
    top_k
        Classes kept of an image; the most where --mass is given.
    mass
        Keep classes until their probabilities sum up to this much.
    kind
        Probabilities, or raw logits.
    value_dtype
        Type of the kept numbers.
    packing
        plain, or compact: 8 bits a probability, and classes as differences.
    base_seed
        Seed of all augmentations.
    """

    top_k: int = 10
    mass: float | None = None
    kind: Literal["probabilities", "logits"] = "probabilities"
    value_dtype: Literal["float16", "float32"] = "float16"
    packing: Literal["plain", "compact"] = "plain"
    base_seed: int = 0


def save_command(
    images: Images,
    /,
    out: Path,
    teacher: tyro.conf.OmitArgPrefixes[TeacherOptions],
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = LabelOptions(),
    epochs: int = 1,
    first_epoch: int = 0,
    part: Part = None,
    shard: str | None = None,
    recipe: str | None = None,
    overrides: Overrides = (),
    as_json: Json = False,
) -> int:
    """Ask a teacher about augmented images and keep its answers in a store.

    The same command again asks only what is missing. Any number of processes may write a store at
    once, each its --part of the images; under torchrun they share them out by themselves.

    Args:
        images: Folder of class folders or of images, .csv list, .tar shards, digits[:PART],
            composites[:PART[:COUNT[:SEED]]] or hf:NAME[:SPLIT].
        out: Folder of the store.
        teacher: Who is asked, and how.
        labels: What is kept of an answer.
        epochs: Number of epochs; each has augmentations of its own.
        first_epoch: Number of the first one.
        part: Share of the images, such as 0/4 to 3/4. Default: all, or that of torchrun.
        shard: Name of this process's file. Default: the number of the part.
        recipe: Show images as this recipe of distill train does; its name or TOML file. Default:
            as the recipes of TinyViT do.
        overrides: Change that, such as augmentation.erase_prob=0 augmentation.scale=[0.5,1] or
            images.decoding.max_pixels=1000000.
        as_json: Print one JSON object.
    """
    require_positive(epochs=epochs)
    number, count = _part(part)
    shard = shard or str(number)
    source, replay = open_images(images), _replay(recipe, flat(overrides))
    numbers = np.arange(number, len(source), count)
    asked = teacher_of(teacher)
    fingerprint, canary = replay.identity()
    config = StoreConfig(
        classes=asked.num_classes, k=labels.top_k, kind=labels.kind, keys="name",
        value_dtype=labels.value_dtype, packing=labels.packing, mass=labels.mass,
        teacher=asked.name, fingerprint=fingerprint, canary=canary, base_seed=labels.base_seed,
    )  # fmt: skip
    work = _Pass(
        source=source, replay=replay, teacher=asked, loader=loader_of(teacher, labels.base_seed)
    )
    started_s, written, missing = time.monotonic(), 0, 0
    try:
        with Bars("labels") as bars:
            for epoch in range(first_epoch, first_epoch + epochs):
                done, left = _save_epoch(work, out, config, epoch, shard, numbers, bars)
                written, missing = written + done, missing + left
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from there")
        return STOPPED
    took_s, skipped = time.monotonic() - started_s, _tell_skipped(work.report)
    if as_json:
        print_json(
            store=str(out), images=len(numbers), epochs=epochs, written=written,
            left_out=skipped, seconds=took_s, teacher=asked.name,
        )  # fmt: skip
    else:
        print(
            f"{written} labels written, {epochs * len(numbers) - missing} were there before, "
            f"{took_s:.1f} s: {out}"
        )
    return DONE


def check_command(
    store: tyro.conf.Positional[Path],
    images: Images,
    /,
    teacher: tyro.conf.OmitArgPrefixes[TeacherOptions],
    epoch: int | None = None,
    num_images: int = 1000,
    max_error: float = 1e-3,
    as_json: Json = False,
) -> int:
    """Ask a teacher again about some images and compare with what a store says.

    The exit code is 1 if augmentations come out differently here than where the store was written,
    or if the teacher's numbers are too far off.

    Args:
        store: Folder of the store.
        images: The same images as for save.
        teacher: Who is asked, and how.
        epoch: Epoch that is compared. Default: the first one that is stored.
        num_images: Images that are compared, evenly spread over all.
        max_error: Largest mean difference of the kept numbers.
        as_json: Print one JSON object.
    """
    require_positive(num_images=num_images)
    labels = SoftLabels(store, on_missing="refuse")
    replay, source = replay_of(labels.config), open_images(images)
    chosen = labels.epochs[0] if epoch is None else epoch
    keys = [source.key(number) for number in range(len(source))]
    stored = np.flatnonzero(labels.contains(chosen, keys))
    if not len(stored):
        raise ValueError(f"images: expected some of those in epoch {chosen} of {store}, got none")
    asked = teacher_of(teacher)
    fingerprint, canary = replay.identity()
    has_same_pixels = (fingerprint, canary) == (labels.config.fingerprint, labels.config.canary)
    work = _Pass(source=source, replay=replay, teacher=asked, loader=loader_of(teacher, 0))
    some = stored[:: max(1, len(stored) // num_images)][:num_images]
    batches = work.batches(some, chosen, StoredSeeds(labels=labels))
    found = check(labels, asked, batches, epoch=chosen)
    is_good = has_same_pixels and found.value_error <= max_error
    if as_json:
        print_json(
            images=found.num_images, value_error=found.value_error, index_share=found.index_share,
            canary=has_same_pixels, teacher=asked.name, stored_teacher=labels.config.teacher,
            is_good=is_good,
        )  # fmt: skip
        return DONE if is_good else STOPPED
    _tell_check(found, asked.name, labels.config.teacher, has_same_pixels=has_same_pixels)
    if not is_good:
        say("the labels are not what this teacher says of these images here")
    return DONE if is_good else STOPPED


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """Everything that decides over the images that a teacher sees."""

    source: Source
    replay: Replay
    teacher: Teacher
    loader: LoaderConfig
    report: Report = field(default_factory=Report)

    def batches(
        self, numbers: Any, epoch: int, seeds_of: SeedFunction
    ) -> Iterator[tuple[Sequence[str], Any]]:
        """Keys and images, in the order of the numbers."""
        loader = ImageLoader(
            Subset(source=self.source, numbers=numbers),
            TrainTransform(augmentation=self.replay.augmentation, views=(self.teacher.view,)),
            self.loader,
            decoding=self.replay.decoding,
            seeds_of=seeds_of,
        )
        for batch in loader.epoch(epoch):
            self.report.add(len(batch), batch.notes)
            if len(batch):
                yield batch.keys, batch.views[0]


def _tell_skipped(report: Report) -> int:
    """Warn of images that could not be read; their number."""
    skipped = {note.key: note.kind for note in report.skipped}
    if skipped:
        some = [f"{key}: {kind}" for key, kind in list(skipped.items())[:SHOWN]]
        warn([f"{len(skipped)} images could not be read and have no labels", *some])
    return len(skipped)


def _tell_check(found: CheckReport, asked: str, stored: str, *, has_same_pixels: bool) -> None:
    shown = Table("compared", "found")
    for title, value in (
        ("images", str(found.num_images)),
        ("mean difference of values", f"{found.value_error:.3g}"),
        ("share of other classes", f"{found.index_share:.3g}"),
        ("augmented pixels", "the same" if has_same_pixels else "others than in the store"),
        ("teacher", asked),
        ("teacher of the store", stored),
    ):
        shown.add_row(title, value)
    Console().print(shown)


def _save_epoch(
    work: _Pass, out: Path, config: StoreConfig, epoch: int, shard: str, numbers: Any, bars: Bars
) -> tuple[int, int]:
    """Write what is missing of an epoch: how many labels, of how many missing ones."""
    keys = [work.source.key(number) for number in numbers.tolist()]
    # Opening also closes what a killed process has left open under this name.
    with StoreWriter(out, config, epoch=epoch, shard=shard) as writer:
        missing = writer.missing(keys)
    if not len(missing):
        return 0, 0
    title = f"epoch {epoch}"
    bars.update(title, 0, len(missing))
    found = write(
        out, config, work.teacher, work.batches(numbers[missing], epoch, augmentation_seeds),
        epoch=epoch, shard=shard, progress=lambda done: bars.update(title, done, len(missing)),
    )  # fmt: skip
    bars.close(title, found.num_written)
    return found.num_written, len(missing)


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class _Images:
    """What --set changes below images."""

    decoding: Decoding = Decoding()


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class _Seen:
    """What --set changes without a recipe, in the words of recipes."""

    augmentation: AugmentationConfig = AugmentationConfig()
    images: _Images = _Images()


_ADAPTER = TypeAdapter(_Seen)


def _replay(recipe: str | None, changes: list[str]) -> Replay:
    """How a recipe, or the default of recipes, shows images; with some changes."""
    found: VisionRecipe | _Seen
    if recipe is None:
        table = override(_ADAPTER.dump_python(_Seen(), mode="json"), changes)
        found = build(_ADAPTER, _Seen, table, "--set")
    else:
        found = load_vision_recipe(recipe, changes)
    return Replay(augmentation=found.augmentation.build(), decoding=found.images.decoding)


def _part(text: str | None) -> tuple[int, int]:
    """Number and count of parts, those of torchrun by default."""
    if text is None:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    number, slash, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and slash and int(number) < int(count)):
        raise ValueError(f"part: expected NUMBER/COUNT from 0/COUNT on, got {text!r}")
    return int(number), int(count)
