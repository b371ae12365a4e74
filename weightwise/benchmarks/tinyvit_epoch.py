"""An epoch from a store of soft labels beside one with the teacher in memory, on one core.

``5m``   TinyViT-5M at 224 pixels, taught by TinyViT-21M at 224.
``21m``  TinyViT-21M at 224 pixels, taught by TinyViT-21M at 384.

Both epochs decode the same JPEG files, augment them from the same seeds and take the same steps;
beside a teacher its view is augmented too. A student's step costs three forward passes, so that
the time of the online epoch over that of the stored one is at most 1 + T / (3 S), with the
multiply-accumulates T and S of teacher and student: the bound. As models differ in what they do in
a second, the same bound is also given with measured times of the two forward passes.

CPU time of the process on one thread, the epochs in turns after one to warm up, medians.

    python weightwise/benchmarks/tinyvit_epoch.py [5m 21m]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from peers.clock import SEED, compare, emit, threads
from tinyvit_images import files, photos

from weightwise.distill import StoreConfig, StoreWriter, augmentation_seeds
from weightwise.distill.replay import Replay
from weightwise.distill.teachers import TeacherConfig
from weightwise.images import ImageLoader, LoaderConfig, TrainTransform
from weightwise.train.parallel import open_world
from weightwise.train.vision import VisionTrainer, batch_plan
from weightwise.train.vision_config import StoreTargets, StudentConfig, TeacherTargets
from weightwise.train.vision_images import FolderSource, ImagesConfig, open_images
from weightwise.train.vision_recipe import VisionRecipe, VisionTrainConfig
from weightwise.train.vision_targets import open_target
from weightwise.vision import VARIANTS, TinyViT, TinyViTConfig, macs, save_tiny_vit

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightwise.train.parallel import World

SYSTEM = "tinyvit"
IMAGES, BATCH, REPEATS = 16, 8, 5
CLASSES, TOP_K = 1000, 10
GOAL = 0.9  # of the bound


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Who teaches whom."""

    student: str
    teacher: TinyViTConfig
    words: str


LARGER = replace(VARIANTS["21m"], image_size=384, windows=(12, 24, 12))
PAIRS = {
    "5m": Pair(student="5m", teacher=VARIANTS["21m"], words="TinyViT-21M at 224 pixels"),
    "21m": Pair(student="21m", teacher=LARGER, words="TinyViT-21M at 384 pixels"),
}


def main() -> None:
    with threads(1), open_world() as world:
        for name in sys.argv[1:] or PAIRS:
            with tempfile.TemporaryDirectory() as folder:
                measure(name, PAIRS[name], Path(folder), world)


def measure(name: str, pair: Pair, folder: Path, world: World) -> None:
    """Time both epochs of a pair, the passes they consist of, and loading."""
    make_images(folder / "images")
    recipe = stored_recipe(pair, folder)
    make_store(recipe, folder / "store")
    model = TinyViT(pair.teacher)
    model.initialize(torch.Generator().manual_seed(SEED))
    save_tiny_vit(model, folder / "teacher.safetensors")
    asked = TeacherConfig(name=str(folder / "teacher.safetensors"))
    beside = replace(recipe, targets=TeacherTargets(teacher=asked, top_k=TOP_K))
    stored, online = epoch_of(recipe, world), epoch_of(beside, world)
    found = compare(stored, {"online": online}, REPEATS)["online"]
    stored_s = statistics.median(found.seconds) / found.ratio
    student = TinyViT(VARIANTS[pair.student])
    passes = compare(forward(student), {"teacher": forward(model)}, REPEATS)["teacher"]
    counts = [macs(config).products for config in (VARIANTS[pair.student], pair.teacher)]
    ratio, bound = found.ratio, 1 + counts[1] / (3 * counts[0])
    timed_bound = 1 + passes.ratio / 3
    detail: dict[str, object] = {
        "bound": round(bound, 3), "bound by times": round(timed_bound, 3),
        "ratio over the bound by times": round(ratio / timed_bound, 3),
        "G macs": [round(count / 1e9, 3) for count in counts],
        "share of loading": round(loading_s(recipe) / stored_s, 4), "images": IMAGES,
        "batch": BATCH, **found.detail(),
    }  # fmt: skip
    emit(SYSTEM, name=f"epoch_online_over_stored_{name}", value=round(ratio, 3), unit="x",
         peer=f"teacher in memory: {pair.words}", goal=(">=", round(GOAL * bound, 3)),
         detail=detail)  # fmt: skip
    emit(SYSTEM, name=f"epoch_share_of_bound_{name}", value=round(ratio / timed_bound, 3),
         unit="of the bound by times", peer=f"teacher in memory: {pair.words}", goal=(">=", GOAL),
         detail=detail)  # fmt: skip


def stored_recipe(pair: Pair, folder: Path) -> VisionRecipe:
    """An epoch from the store."""
    return VisionRecipe(
        name="epoch",
        seed=SEED,
        model=StudentConfig(variant=pair.student, num_classes=CLASSES),
        images=ImagesConfig(
            source=FolderSource(path=str(folder / "images"), valid=str(folder / "images"))
        ),
        targets=StoreTargets(store=str(folder / "store")),
        train=VisionTrainConfig(epochs=1, batch_size=BATCH),
    )


def make_images(folder: Path) -> None:
    """JPEG files of 320 x 256 pixels in a folder of one class."""
    (folder / "0").mkdir(parents=True)
    for number, data in enumerate(files(photos(IMAGES))):
        (folder / "0" / f"{number}.jpg").write_bytes(data)


def make_store(recipe: VisionRecipe, path: Path) -> None:
    """Labels of an epoch; drawn, because time does not depend on what they say."""
    source = open_images(recipe.images, CLASSES, needs_labels=False).train
    replay = Replay(augmentation=recipe.augmentation.build(), decoding=recipe.images.decoding)
    fingerprint, canary = replay.identity()
    config = StoreConfig(
        classes=CLASSES, k=TOP_K, keys="name", teacher="drawn", fingerprint=fingerprint,
        canary=canary, base_seed=SEED,
    )  # fmt: skip
    keys = [source.key(number) for number in range(len(source))]
    rng = np.random.default_rng(SEED)
    index_NK = np.stack([rng.permutation(CLASSES)[:TOP_K] for _ in keys])
    value_NK = -np.sort(-rng.dirichlet(np.ones(TOP_K), len(keys)), axis=1)
    with StoreWriter(path, config, epoch=0) as writer:
        seed_N = augmentation_seeds(SEED, 0, keys)
        writer.append(keys, seed_N, index_NK.astype(np.uint16), value_NK.astype(np.float16))


def epoch_of(recipe: VisionRecipe, world: World) -> Callable[[], None]:
    """All steps of an epoch of a training."""
    images = open_images(recipe.images, CLASSES, needs_labels=False)
    plan = batch_plan(recipe, world)
    trainer = VisionTrainer(recipe, images, open_target(recipe), plan, world, None)

    def work() -> None:
        for step in range(1, IMAGES // BATCH + 1):
            trainer.gradient(step)
            trainer.move(step)

    return work


def loading_s(recipe: VisionRecipe) -> float:
    """CPU seconds that an epoch from the store takes until its images are there."""
    source = open_images(recipe.images, CLASSES, needs_labels=False).train
    view = recipe.images.view(recipe.model.build().image_size)
    transform = TrainTransform(augmentation=recipe.augmentation.build(), views=(view,))
    loader = ImageLoader(source, transform, LoaderConfig(batch_size=BATCH, base_seed=SEED))
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        for _ in loader.epoch(0):
            pass
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def forward(model: TinyViT) -> Callable[[], None]:
    """A forward pass of a batch, as a teacher makes it."""
    model.eval()
    side = model.config.image_size
    x_B3SS = torch.randn(BATCH, 3, side, side, generator=torch.Generator().manual_seed(SEED))

    def work() -> None:
        with torch.inference_mode():
            model(x_B3SS)

    return work


if __name__ == "__main__":
    main()
