"""Recipes of vision models: those of TinyViT, and a teacher and a student for a first look.

==========================  ====================================================================
`tinyvit-SIZE`              ImageNet-1k from scratch
`tinyvit-SIZE-distill`      ImageNet-22k from a store of soft labels
`tinyvit-SIZE-finetune`     ImageNet-1k, from a model of ImageNet-22k
`tinyvit-SIZE-384`, `-512`  higher resolution: 384 from the fine-tuned model, 512 from that at 384
`composites-teacher`        hundred classes of two digits, from labels
`composites-labels`         a small student, three in ten of whose labels are wrong
`composites-student`        the same student from a store, without labels
==========================  ====================================================================

SIZE is 5m, 11m or 21m. Settings are those of Wu et al., arXiv 2207.10666, section 4.1, and of the
code released with it; where the paper knows one resolution of a size only, the rule is the same.
Paths are places to put images, stores and class maps; ``--set`` names others. Recipes of DeiT, Swin
and of models that share weights are in `weightwise.recipes.vision_mini`.

Command   weightwise distill train composites-teacher
          weightwise distill save composites --teacher out/composites-teacher --top-k 10
              --out out/composites-store --epochs 10 --set augmentation.scale=[0.8,1.0]
              augmentation.flip_prob=0 augmentation.erase_prob=0 augmentation.rand_augment.num_ops=0
          weightwise distill train composites-student
Cost      about a minute on one CPU core for each run, half of that for the store
Expect    top-1 of about 94 % for the teacher and 81 % for its student, whose rates nobody tuned;
          docs/results/tinyvit.md compares with labels alone, right and wrong ones, both tuned
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from weightwise.images import Mix, RandAugment
from weightwise.recipes.vision_mini import MINI_RECIPES
from weightwise.train.recipe import override
from weightwise.train.vision_config import (
    AugmentationConfig,
    StartConfig,
    StoreTargets,
    StudentConfig,
)
from weightwise.train.vision_images import CompositesSource, FolderSource, ImagesConfig
from weightwise.train.vision_recipe import (
    VisionOptimizerConfig,
    VisionRecipe,
    VisionScheduleConfig,
    VisionTrainConfig,
    read_vision_recipe,
    vision_from_dict,
    vision_to_dict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Size: TypeAlias = Literal["5m", "11m", "21m"]
Side: TypeAlias = Literal[384, 512]
SIZES: tuple[Size, ...] = ("5m", "11m", "21m")
CLASSES_22K = 21_841
# Rates of drop-path, from scratch and otherwise.
SCRATCH_DROP = {"5m": 0.0, "11m": 0.1, "21m": 0.2}
OTHER_DROP = {"5m": 0.0, "11m": 0.0, "21m": 0.1}
_IMAGENET = ImagesConfig(
    source=FolderSource(path="imagenet/train", valid="imagenet/val"), num_workers=8
)

_COMPOSITES_TEACHER = StudentConfig(
    widths=(32, 64, 96, 128), depths=(1, 1, 2, 1), windows=(4, 2, 1), image_size=32,
    num_classes=100,
)  # fmt: skip


def from_scratch(size: Size) -> VisionRecipe:
    """ImageNet-1k from labels, 300 epochs; top-1 of 79.1, 81.5 and 83.1 %."""
    return VisionRecipe(
        name=f"tinyvit-{size}",
        model=StudentConfig(variant=size, drop_path=SCRATCH_DROP[size]),
        images=_IMAGENET,
        mixing=Mix(),
        optimizer=VisionOptimizerConfig(weight_decay=0.05),
        schedule=VisionScheduleConfig(base_lr=5e-4, start_lr=5e-7, min_lr=5e-6, warmup_epochs=20),
        train=VisionTrainConfig(
            epochs=300, batch_size=1024, micro_batch_size=128, dtype="bfloat16"
        ),
    )


def distilled(size: Size) -> VisionRecipe:
    """ImageNet-22k from a store with 100 classes an image, 90 epochs; no labels, no mixing."""
    return VisionRecipe(
        name=f"tinyvit-{size}-distill",
        model=StudentConfig(variant=size, num_classes=CLASSES_22K, drop_path=OTHER_DROP[size]),
        images=ImagesConfig(
            source=FolderSource(path="imagenet22k"), valid_share=0.001, num_workers=8
        ),
        targets=StoreTargets(store="imagenet22k-labels"),
        optimizer=VisionOptimizerConfig(weight_decay=0.01),
        schedule=VisionScheduleConfig(base_lr=2.5e-4, start_lr=5e-7, min_lr=5e-6, warmup_epochs=5),
        train=VisionTrainConfig(epochs=90, batch_size=4096, micro_batch_size=128, dtype="bfloat16"),
    )


def fine_tuned(size: Size) -> VisionRecipe:
    """ImageNet-1k, begun with the distilled model; top-1 of 80.7, 83.2 and 84.8 %."""
    return VisionRecipe(
        name=f"tinyvit-{size}-finetune",
        model=StudentConfig(variant=size, drop_path=OTHER_DROP[size]),
        start=StartConfig(path=f"out/tinyvit-{size}-distill", class_map="imagenet-1k-in-22k.txt"),
        images=_IMAGENET,
        optimizer=VisionOptimizerConfig(weight_decay=1e-8, layer_decay=0.8),
        schedule=VisionScheduleConfig(base_lr=2.5e-4, start_lr=5e-7, min_lr=1e-5, warmup_epochs=5),
        train=VisionTrainConfig(
            epochs=30,
            batch_size=1024,
            micro_batch_size=128,
            dtype="bfloat16",
            batch_norm="running",
        ),
    )


def enlarged(size: Size, side: Side) -> VisionRecipe:
    """Higher resolution, from labels; top-1 of 86.2 % at 384 and 86.5 % at 512 for 21m."""
    base = fine_tuned(size)
    before = "finetune" if side == 384 else "384"
    windows = {384: (12, 24, 12), 512: (16, 32, 16)}[side]
    return replace(
        base,
        name=f"tinyvit-{size}-{side}",
        model=StudentConfig(
            variant=size, drop_path=OTHER_DROP[size], image_size=side, windows=windows
        ),
        start=StartConfig(path=f"out/tinyvit-{size}-{before}"),
        images=replace(_IMAGENET, fit="square"),
        optimizer=VisionOptimizerConfig(weight_decay=1e-8),
        schedule=VisionScheduleConfig(base_lr=2e-5, start_lr=2e-8, min_lr=2e-7, warmup_epochs=5),
        train=replace(base.train, micro_batch_size=32),
    )


def composites_teacher() -> VisionRecipe:
    """Two digits in an image, from labels."""
    return VisionRecipe(
        name="composites-teacher",
        model=_COMPOSITES_TEACHER,
        images=ImagesConfig(source=CompositesSource()),
        # No operations, so that digits stay what they are.
        augmentation=AugmentationConfig(
            scale=(0.8, 1.0), flip_prob=0.0, erase_prob=0.0, rand_augment=RandAugment(num_ops=0)
        ),
        schedule=VisionScheduleConfig(base_lr=1e-2, min_lr=1e-5, warmup_epochs=1),
        train=VisionTrainConfig(epochs=10, batch_size=64, eval_batch_size=250, log_every=20),
    )


def composites_labels() -> VisionRecipe:
    """A smaller model from labels of which three in ten are wrong."""
    teacher = composites_teacher()
    return replace(
        teacher,
        name="composites-labels",
        model=replace(_COMPOSITES_TEACHER, widths=(16, 32, 64, 96), depths=(1, 1, 1, 1)),
        images=replace(teacher.images, corrupt_share=0.3),
    )


def composites_student() -> VisionRecipe:
    """The smaller model from what the teacher has said."""
    return replace(
        composites_labels(),
        name="composites-student",
        images=composites_teacher().images,
        targets=StoreTargets(store="out/composites-store"),
    )


VISION_RECIPES: dict[str, Callable[[], VisionRecipe]] = {
    "composites-teacher": composites_teacher,
    "composites-labels": composites_labels,
    "composites-student": composites_student,
    **{f"tinyvit-{size}": partial(from_scratch, size) for size in SIZES},
    **{f"tinyvit-{size}-distill": partial(distilled, size) for size in SIZES},
    **{f"tinyvit-{size}-finetune": partial(fine_tuned, size) for size in SIZES},
    **{f"tinyvit-{size}-384": partial(enlarged, size, 384) for size in SIZES},
    **{f"tinyvit-{size}-512": partial(enlarged, size, 512) for size in SIZES},
    **MINI_RECIPES,
}


def load_vision_recipe(path_or_name: Path | str, overrides: Sequence[str] = ()) -> VisionRecipe:
    """Find a recipe and change settings in it, as `weightwise.recipes.load_recipe` does.

    Parameters
    ----------
    path_or_name
        Name of a built-in recipe, or path of a TOML file.
    overrides
        Changes such as ``"train.epochs=5"``.

    Raises
    ------
    ValueError
        If there is no such recipe, or a setting is wrong; one line that names it.
    """
    name = str(path_or_name)
    if name in VISION_RECIPES:
        table = override(vision_to_dict(VISION_RECIPES[name]()), overrides)
        return vision_from_dict(table, origin=name)
    path = Path(path_or_name)
    if not path.is_file():
        raise ValueError(
            f"recipe: expected a TOML file or one of {', '.join(VISION_RECIPES)}, got {name!r}"
        )
    return read_vision_recipe(path, overrides)
