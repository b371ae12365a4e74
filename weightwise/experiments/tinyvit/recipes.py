"""Recipes of the study: a teacher of two digits in an image, and a student of a third its size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from weightwise.distill.teachers import TeacherConfig
from weightwise.recipes.vision import composites_labels, composites_teacher
from weightwise.train.vision_config import LabelTargets, StoreTargets, TeacherTargets
from weightwise.train.vision_images import CompositesSource

if TYPE_CHECKING:
    from pathlib import Path

    from weightwise.train.vision_config import Targets
    from weightwise.train.vision_recipe import VisionRecipe

# Peak rates are those of a batch of 512. Teachers and distilled students are not tuned.
RATE, SMOOTHING = 2e-2, 0.1
RATES, SMOOTHINGS = (1e-2, 2e-2, 4e-2), (0.0, 0.1, 0.3)
TOP_K, CLASSES = 10, 100


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is trained.

    Parameters
    ----------
    epochs, count
        Passes over how many images.
    valid_count
        Images of the test split, and of the one for tuning.
    seeds
        Of weights, order, augmentation and wrong labels. Rates are chosen with seed 0.
    shares
        Of wrong labels; begins with 0.
    kept
        Classes of an image in the store, ascending, `TOP_K` among them.
    """

    epochs: int = 6
    count: int = 4000
    valid_count: int = 1000
    seeds: tuple[int, ...] = (1, 2, 3)
    shares: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3)
    kept: tuple[int, ...] = (1, 2, 5, 10, 30, 100)


def teacher(scale: Scale, seed: int, share: float) -> VisionRecipe:
    """559 thousand weights, from labels of which a share is wrong."""
    made = composites_teacher()
    recipe = _shaped(made, f"teacher-{share:g}-s{seed}", scale, seed)
    return _with_wrong(recipe, share, seed)


def from_labels(
    scale: Scale, seed: int, share: float, rate: float, smoothing: float
) -> VisionRecipe:
    """The student of 217 thousand weights, from labels of which a share is wrong."""
    name = f"labels-{share:g}-lr{rate:g}-smooth{smoothing:g}-s{seed}"
    recipe = _shaped(composites_labels(), name, scale, seed, rate)
    recipe = _with_wrong(recipe, share, seed)
    return replace(recipe, targets=LabelTargets(smoothing=smoothing))


def from_store(scale: Scale, seed: int, share: float, store: Path, kept: int) -> VisionRecipe:
    """The same student, from what a teacher of that share has said."""
    name = f"stored-{share:g}-k{kept}-s{seed}"
    return _distilled(name, scale, seed, StoreTargets(store=str(store), on_missing="refuse"))


def from_teacher(scale: Scale, seed: int, share: float, folder: Path) -> VisionRecipe:
    """The same student beside its teacher."""
    targets = TeacherTargets(teacher=TeacherConfig(name=str(folder)), top_k=TOP_K)
    return _distilled(f"online-{share:g}-s{seed}", scale, seed, targets)


def _distilled(name: str, scale: Scale, seed: int, targets: Targets) -> VisionRecipe:
    recipe = _with_wrong(_shaped(composites_labels(), name, scale, seed), 0.0, seed)
    return replace(recipe, targets=targets)


def _shaped(
    recipe: VisionRecipe, name: str, scale: Scale, seed: int, rate: float = RATE
) -> VisionRecipe:
    source = CompositesSource(count=scale.count, valid_count=scale.valid_count)
    train = replace(
        recipe.train, epochs=scale.epochs, log_every=1, keep_checkpoints=1,
        eval_every=10**6,  # the last step only
    )  # fmt: skip
    warmup_epochs = min(1.0, scale.epochs / 2)
    return replace(
        recipe, name=name, seed=seed, train=train,
        images=replace(recipe.images, source=source),
        schedule=replace(recipe.schedule, base_lr=rate, warmup_epochs=warmup_epochs),
    )  # fmt: skip


def _with_wrong(recipe: VisionRecipe, share: float, seed: int) -> VisionRecipe:
    images = replace(recipe.images, corrupt_share=share, corrupt_seed=seed)
    return replace(recipe, images=images)
