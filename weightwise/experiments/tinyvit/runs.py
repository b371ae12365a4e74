"""Runs and stores of the study: each made once, kept, and gone on with where it was stopped."""

# Shapes: N images, C classes

from __future__ import annotations

import fcntl
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console
from study.runs import StoppedError

from weightwise.distill import StoreConfig, StoreWriter, augmentation_seeds, subset, write
from weightwise.distill.replay import Replay
from weightwise.distill.teachers import TeacherConfig, load_teacher
from weightwise.images import (
    EvalTransform,
    ImageLoader,
    LoaderConfig,
    Subset,
    TrainTransform,
    composites,
)
from weightwise.train import read_metrics
from weightwise.train.vision import train_vision
from weightwise.train.vision_images import open_images
from weightwise.train.vision_start import load_classifier, load_vision_model

from .recipes import CLASSES, RATES, SMOOTHING, SMOOTHINGS, TOP_K, from_labels, from_store
from .recipes import teacher as teacher_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from weightwise.distill.teachers import Teacher
    from weightwise.images import ArrayImages, Source
    from weightwise.train.vision_recipe import VisionRecipe

    from .recipes import Scale

BATCH = 250


class VisionRuns:
    """Makes runs and stores that are missing.

    Parameters
    ----------
    folder
        Where they stay. Several processes may work in it: each makes what no other is making.
    scale
        How much is trained.
    """

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.folder, self.scale = folder, scale
        self._made: dict[str, Path] = {}
        self._scores: dict[str, float] = {}
        self._test: ArrayImages | None = None

    def made(self, recipe: VisionRecipe) -> Path:
        """Folder of a run.

        Raises
        ------
        StoppedError
            If it was stopped.
        """
        name = recipe.name
        if name not in self._made:
            folder = self.folder / "runs" / name
            with _alone(folder):
                is_new = not (folder / "checkpoints").exists()
                result = train_vision(recipe, folder, console=Console(quiet=True))
            if not result.is_complete:
                raise StoppedError(f"{folder}: stopped; the same command goes on")
            if is_new:
                print(f"{name}: top-1 {top1(folder):.1f} %", file=sys.stderr, flush=True)
            self._made[name] = folder
        return self._made[name]

    def teacher(self, seed: int, share: float) -> Path:
        """Folder of the teacher whose labels are wrong in a share."""
        return self.made(teacher_recipe(self.scale, seed, share))

    def student(self, seed: int, share: float, kept: int = TOP_K) -> Path:
        """Folder of the student that has learned from that teacher's store."""
        store = self.store(seed, share, kept)
        return self.made(from_store(self.scale, seed, share, store, kept))

    def store(self, seed: int, share: float, kept: int = TOP_K) -> Path:
        """Folder of what a teacher says of all epochs, with so many classes an image."""
        # The store with all classes is the larger one; that of clean labels is cut afterwards.
        full = max(self.scale.kept) if share == 0 else TOP_K
        path = self.folder / "stores" / f"{share:g}-k{full}-s{seed}"
        recipe = teacher_recipe(self.scale, seed, share)
        folder = self.teacher(seed, share)
        with _alone(path):
            if not (path / "done").exists():
                write_store(path, recipe, folder, full)
                (path / "done").touch()
        if kept == full:
            return path
        part = path.with_name(f"{share:g}-k{kept}-s{seed}")
        with _alone(part):
            if not part.exists():
                subset(path, part, k=kept)
        return part

    def chosen(self, share: float) -> tuple[float, float]:
        """Rate and smoothing of labels alone that are best on the tuning split, with seed 0."""
        rate = max(RATES, key=lambda one: self._tuned(share, one, SMOOTHING))
        return rate, max(SMOOTHINGS, key=lambda one: self._tuned(share, rate, one))

    def _tuned(self, share: float, rate: float, smoothing: float) -> float:
        recipe = from_labels(self.scale, 0, share, rate, smoothing)
        if recipe.name not in self._scores:
            images = self.tuning()
            logits_NC = logits_of(self.made(recipe), images)
            self._scores[recipe.name] = accuracy(logits_NC, labels_of(images))
        return self._scores[recipe.name]

    def labelled(self, seed: int, share: float) -> Path:
        """Folder of the student that has learned from labels, with the settings chosen for it."""
        return self.made(from_labels(self.scale, seed, share, *self.chosen(share)))

    def tuning(self) -> ArrayImages:
        """Other pairs of the digits of the training split: none of the test split is seen."""
        return composites("train", self.scale.valid_count, 1)

    def test(self) -> ArrayImages:
        """Images of the test split, with right labels."""
        if self._test is None:
            self._test = composites("test", self.scale.valid_count, 0)
        return self._test


def write_store(path: Path, recipe: VisionRecipe, run_dir: Path, kept: int) -> None:
    """Ask a trained model about the images of its recipe in all epochs; goes on where it was.

    Parameters
    ----------
    path
        Folder of the store.
    recipe
        Of the teacher: images, augmentation, epochs, and as base seed its seed.
    run_dir
        Folder of the teacher's run.
    kept
        Classes of an image.
    """
    asked = load_teacher(TeacherConfig(name=str(run_dir)), load_classifier)
    source = open_images(recipe.images, CLASSES, needs_labels=False).train
    replay = Replay(augmentation=recipe.augmentation.build(), decoding=recipe.images.decoding)
    fingerprint, canary = replay.identity()
    config = StoreConfig(
        classes=CLASSES, k=kept, keys="name", teacher=asked.name, fingerprint=fingerprint,
        canary=canary, base_seed=recipe.seed,
    )  # fmt: skip
    keys = [source.key(number) for number in range(len(source))]
    for epoch in range(recipe.train.epochs):
        with StoreWriter(path, config, epoch=epoch) as writer:
            missing = writer.missing(keys)
        if len(missing):
            some = Subset(source=source, numbers=np.asarray(missing))
            batches = _batches(some, recipe, asked, epoch)
            write(path, config, asked, batches, epoch=epoch)


def _batches(
    source: Source, recipe: VisionRecipe, asked: Teacher, epoch: int
) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Keys and images of an epoch, augmented as the student will see them."""
    loader = ImageLoader(
        source,
        TrainTransform(augmentation=recipe.augmentation.build(), views=(asked.view,)),
        LoaderConfig(batch_size=BATCH, base_seed=recipe.seed, is_shuffled=False),
        decoding=recipe.images.decoding,
        seeds_of=augmentation_seeds,
    )
    return ((batch.keys, batch.views[0]) for batch in loader.epoch(epoch))


@torch.inference_mode()
def logits_of(run_dir: Path, source: Source) -> Tensor:
    """What the model of a run says of images, in their order, (N, C)."""
    model, recipe = load_vision_model(run_dir)
    view = recipe.images.view(model.config.image_size)
    loader = ImageLoader(
        source,
        EvalTransform(views=(view,), fit=recipe.images.fit),
        LoaderConfig(batch_size=BATCH, is_shuffled=False),
    )
    return torch.cat([model(batch.views[0]) for batch in loader.epoch(0)])


def labels_of(source: Source) -> Tensor:
    """Classes of images, (N,)."""
    return torch.tensor([source.label(number) for number in range(len(source))])


def accuracy(logits_NC: Tensor, label_N: Tensor) -> float:
    """Share of images whose class comes first, percent."""
    return 100 * (logits_NC.argmax(1) == label_N).double().mean().item()


def top1(run_dir: Path) -> float:
    """Accuracy on the test split at the end of a run, percent."""
    return 100 * [row for row in _metrics(run_dir) if "valid_top1" in row][-1]["valid_top1"]


def step_losses(run_dir: Path) -> list[float]:
    """Training loss of every step of a run, nats."""
    return [row["train_loss"] for row in _metrics(run_dir) if "train_loss" in row]


def _metrics(run_dir: Path) -> list[dict[str, float]]:
    return read_metrics(run_dir / "metrics.jsonl")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process makes the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
