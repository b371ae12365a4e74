"""What tests of vision training share: a tiny recipe, its runs, and stores for it."""

from dataclasses import replace

import torch
from rich.console import Console

from weightwise.distill import (
    StoreConfig,
    augmentation_seeds,
    write,
)
from weightwise.distill.replay import Replay
from weightwise.images import ImageLoader, LoaderConfig, TrainTransform
from weightwise.train import read_metrics
from weightwise.train.parallel import World
from weightwise.train.vision import train_vision
from weightwise.train.vision_config import (
    AugmentationConfig,
    StudentConfig,
)
from weightwise.train.vision_images import (
    CompositesSource,
    ImagesConfig,
    open_images,
)
from weightwise.train.vision_recipe import (
    VisionRecipe,
    VisionScheduleConfig,
    VisionTrainConfig,
)
from weightwise.train.vision_start import load_classifier

QUIET = Console(quiet=True)
ALONE = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
STUDENT = StudentConfig(
    widths=(16, 32, 32, 32), depths=(1, 1, 1, 1), windows=(4, 2, 1), image_size=32,
    num_classes=100, drop_path=0.2,
)  # fmt: skip
# 72 images in steps of 24: three steps an epoch.
RECIPE = VisionRecipe(
    name="tiny",
    model=STUDENT,
    images=ImagesConfig(source=CompositesSource(count=72, valid_count=20)),
    augmentation=AugmentationConfig(scale=(0.6, 1.0)),
    schedule=VisionScheduleConfig(base_lr=2e-2, warmup_epochs=0.5),
    train=VisionTrainConfig(epochs=2, batch_size=24, log_every=1, keep_checkpoints=9),
)
SAVED = replace(RECIPE, train=replace(RECIPE.train, save_every=1))


def trained(recipe, run_dir):
    """Losses by step, after a run."""
    train_vision(recipe, run_dir, console=QUIET)
    return losses(run_dir)


def losses(run_dir):
    """Losses of training and validation by step."""
    return {
        (row["step"], name): row[name]
        for row in read_metrics(run_dir / "metrics.jsonl")
        for name in ("train_loss", "valid_loss")
        if name in row
    }


def rows(run_dir):
    """All rows of a run without the speed, which no two runs share."""
    found = read_metrics(run_dir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k != "images_per_s"} for row in found]


def stored(recipe, teacher, path, *, keys="name", epochs=2, value_dtype="float16", k=20):
    """A store of what a teacher says of a recipe's images."""
    model, view = load_classifier(teacher)
    images = open_images(recipe.images, 100, needs_labels=True)
    replay = Replay(augmentation=recipe.augmentation.build(), decoding=recipe.images.decoding)
    fingerprint, canary = replay.identity()
    config = StoreConfig(
        classes=100, k=k, keys=keys, fingerprint=fingerprint, canary=canary,
        base_seed=recipe.seed, value_dtype=value_dtype,
    )  # fmt: skip
    transform = TrainTransform(augmentation=replay.augmentation, views=(view,))

    def seeds_of(base_seed, epoch, names):
        own = [number_of[name] for name in names] if keys == "index" else names
        return augmentation_seeds(base_seed, epoch, own)

    number_of = {images.train.key(i): int(n) for i, n in enumerate(images.numbers)}
    loader = ImageLoader(
        images.train, transform, LoaderConfig(base_seed=recipe.seed, batch_size=10),
        seeds_of=seeds_of,
    )  # fmt: skip
    for epoch in range(epochs):
        batches = (
            ([number_of[one] for one in batch.keys] if keys == "index" else batch.keys,
             batch.views[0])
            for batch in loader.epoch(epoch)
        )  # fmt: skip
        write(path, config, model, batches, epoch=epoch)
    return path
