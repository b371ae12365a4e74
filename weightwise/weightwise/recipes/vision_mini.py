"""Recipes of DeiT, Swin and of what MiniViT makes of them: one set of weights for several blocks.

=====================================  =========================================================
`deit-SIZE`, `swin-SIZE`               the originals from labels; SIZE is ti, s, b and t, s, b
`deit-b-384`, `swin-b-384`             higher resolution, from the model of 224 pixels
`mini-deit-SIZE`, `mini-swin-SIZE`     shared weights, beside a teacher
`mini-deit-b-384`, `mini-swin-b-384`   higher resolution, from labels
`mini-deit-b-384-cifar10`, `-cifar100` transfer of the largest Mini-DeiT
`digits-vit`                           small DeiT of six blocks, from labels
`digits-mini`                          six executions of one block, beside `digits-vit`
`digits-shrunk`                        `digits-vit` brought to half its weights, and trained on
=====================================  =========================================================

Settings are those of MiniViT (Zhang et al., arXiv 2204.07154) and of the code released with it, and
for the originals those of the same code from labels, with the drop-path rates of their own papers
(arXiv 2012.12877, table 9, and arXiv 2103.14030). Ours are the teacher of Mini-Swin, which the code
leaves open, and the lowest and first rates of `mini-deit-b-384`, where the released lowest rate is
above the highest one. Paths are places to put images and runs; ``--set`` names others.

Command   weightwise distill train digits-vit
          weightwise distill train digits-mini
          weightwise distill train digits-shrunk
Cost      less than a minute on one CPU core for each run
Expect    top-1 of 97.9 % for `digits-vit` with 304,842 parameters, of 93.4 % for `digits-mini` with
          20,666, and of 97.9 % for `digits-shrunk` with 127,626
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from weightwise.distill.matching import MATCHES
from weightwise.distill.teachers import TeacherConfig
from weightwise.images import Mix, RandAugment
from weightwise.multiplex.plan import Transforms
from weightwise.train.vision_config import (
    AugmentationConfig,
    RelationTargets,
    ShareConfig,
    StartConfig,
    TeacherTargets,
)
from weightwise.train.vision_images import DigitsSource, FolderSource, ImagesConfig
from weightwise.train.vision_models import DeiTStudent, SwinStudent
from weightwise.train.vision_recipe import (
    VisionOptimizerConfig,
    VisionRecipe,
    VisionScheduleConfig,
    VisionTrainConfig,
)

if TYPE_CHECKING:
    from collections.abc import Callable

DeiTSize: TypeAlias = Literal["ti", "s", "b"]
SwinSize: TypeAlias = Literal["t", "s", "b"]
DEIT_SIZES: tuple[DeiTSize, ...] = ("ti", "s", "b")
SWIN_SIZES: tuple[SwinSize, ...] = ("t", "s", "b")
DEIT_TEACHER = "timm:regnety_160.deit_in1k"
SWIN_TEACHER = "timm:swin_base_patch4_window7_224.ms_in22k_ft_in1k"
CIFAR_CLASSES = {"cifar10": 10, "cifar100": 100}
_IMAGENET = ImagesConfig(
    source=FolderSource(path="imagenet/train", valid="imagenet/val"), num_workers=8
)
# As released, the start of maps over heads is near zero.
_MINI_DEIT: dict[DeiTSize, DeiTStudent] = {
    "ti": DeiTStudent(variant="mini-ti", mix_start="published"),
    "s": DeiTStudent(variant="mini-s", mix_start="published"),
    "b": DeiTStudent(variant="mini-b", mix_start="published"),
}
_DEIT: dict[DeiTSize, DeiTStudent] = {
    size: DeiTStudent(variant=size, drop_path=0.1) for size in DEIT_SIZES
}
_SWIN: dict[SwinSize, SwinStudent] = {size: SwinStudent(variant=size) for size in SWIN_SIZES}
_MINI_SWIN_SIZES: dict[SwinSize, Literal["mini-t", "mini-s", "mini-b"]] = {
    "t": "mini-t", "s": "mini-s", "b": "mini-b",
}  # fmt: skip


def deit(size: DeiTSize) -> VisionRecipe:
    """DeiT on ImageNet-1k from labels: 300 epochs and ten at the lowest rate."""
    return VisionRecipe(
        name=f"deit-{size}",
        model=_DEIT[size],
        images=_IMAGENET,
        mixing=Mix(),
        optimizer=VisionOptimizerConfig(weight_decay=0.05, average_decay=0.99996),
        schedule=VisionScheduleConfig(
            base_lr=5e-4, start_lr=5e-7, min_lr=5e-6, warmup_epochs=5, cooldown_epochs=10
        ),
        train=VisionTrainConfig(
            epochs=310, batch_size=1024, micro_batch_size=128, dtype="bfloat16", repeats=3,
            grad_clip=0.0,
        ),
    )  # fmt: skip


def mini_deit(size: DeiTSize) -> VisionRecipe:
    """Mini-DeiT beside a RegNetY; top-1 of 73.0, 80.9 and 83.2 %."""
    return replace(
        deit(size),
        name=f"mini-deit-{size}",
        model=_MINI_DEIT[size],
        targets=TeacherTargets(teacher=TeacherConfig(name=DEIT_TEACHER, dtype="bfloat16")),
    )


def deit_384(*, is_mini: bool) -> VisionRecipe:
    """DeiT-B or Mini-DeiT-B at 384 pixels, from labels; Mini-DeiT reaches top-1 of 84.9 %."""
    base = mini_deit("b") if is_mini else deit("b")
    # The released code leaves the model in evaluation mode, which is to drop no path.
    student = (
        DeiTStudent(variant="mini-b-384", mix_start="published", drop_path=0.0)
        if is_mini
        else DeiTStudent(variant="b-384", drop_path=0.0)
    )
    return replace(
        deit("b"),
        name=f"{base.name}-384",
        model=student,
        start=StartConfig(path=f"out/{base.name}"),
        images=replace(_IMAGENET, fit="square"),
        optimizer=VisionOptimizerConfig(weight_decay=1e-8),
        schedule=VisionScheduleConfig(base_lr=5e-6, start_lr=5e-9, min_lr=5e-8, warmup_epochs=5),
        train=replace(base.train, epochs=30, batch_size=256, micro_batch_size=32),
    )


def cifar(name: str) -> VisionRecipe:
    """Transfer of Mini-DeiT-B at 384 pixels by gradient descent with momentum."""
    base = deit_384(is_mini=True)
    return replace(
        base,
        name=f"{base.name}-{name}",
        model=replace(base.model, num_classes=CIFAR_CLASSES[name]),
        start=StartConfig(path=f"out/{base.name}"),
        images=replace(
            base.images, source=FolderSource(path=f"{name}/train", valid=f"{name}/test")
        ),
        augmentation=AugmentationConfig(erase_prob=0.0),
        optimizer=VisionOptimizerConfig(kind="sgd", weight_decay=1e-4),
        schedule=VisionScheduleConfig(base_lr=1e-2, start_lr=2e-6, min_lr=2e-5, warmup_epochs=5),
        train=replace(base.train, epochs=1000),
    )


def swin(size: SwinSize) -> VisionRecipe:
    """Swin on ImageNet-1k from labels, 300 epochs."""
    return VisionRecipe(
        name=f"swin-{size}",
        model=_SWIN[size],
        images=_IMAGENET,
        mixing=Mix(),
        optimizer=VisionOptimizerConfig(weight_decay=0.05),
        schedule=VisionScheduleConfig(base_lr=5e-4, start_lr=5e-7, min_lr=5e-6, warmup_epochs=20),
        train=VisionTrainConfig(
            epochs=300, batch_size=1024, micro_batch_size=128, dtype="bfloat16"
        ),
    )


def mini_swin(size: SwinSize) -> VisionRecipe:
    """Mini-Swin, relations of a Swin-B beside its predictions; top-1 of 81.3, 83.9 and 84.5 %."""
    match = MATCHES[f"mini-swin-{size}"]
    return replace(
        swin(size),
        name=f"mini-swin-{size}",
        model=_as_published(_MINI_SWIN_SIZES[size]),
        targets=TeacherTargets(
            teacher=TeacherConfig(name=SWIN_TEACHER, dtype="bfloat16"),
            relations=RelationTargets(student_layers=match.student, teacher_layers=match.teacher),
        ),
    )


def swin_384(*, is_mini: bool) -> VisionRecipe:
    """Swin-B or Mini-Swin-B at 384 pixels, from labels; Mini-Swin reaches top-1 of 85.5 %."""
    base = mini_swin("b") if is_mini else swin("b")
    model = _as_published("mini-b-384") if is_mini else SwinStudent(variant="b-384")
    return replace(
        swin("b"),
        name=f"{base.name}-384",
        model=model,
        start=StartConfig(path=f"out/{base.name}"),
        images=replace(_IMAGENET, fit="square"),
        optimizer=VisionOptimizerConfig(weight_decay=1e-8),
        schedule=VisionScheduleConfig(base_lr=2e-5, start_lr=2e-8, min_lr=2e-7, warmup_epochs=5),
        train=replace(base.train, epochs=30, batch_size=256, micro_batch_size=16),
    )


def _as_published(variant: Literal["mini-t", "mini-s", "mini-b", "mini-b-384"]) -> SwinStudent:
    """As `weightwise.vision.swin_config.as_published` has it."""
    return SwinStudent(
        variant=variant, local="published", mask_unshifted=True, mix_start="published"
    )


def digits_vit() -> VisionRecipe:
    """Handwritten digits from labels."""
    return VisionRecipe(
        name="digits-vit",
        model=DeiTStudent(
            width=64, num_heads=4, groups=(1,) * 6, patch=4, image_size=16, num_classes=10,
            class_token=False, position_std=0.5,
        ),
        images=ImagesConfig(source=DigitsSource(size=16)),
        # No operations, so that digits stay what they are.
        augmentation=AugmentationConfig(
            scale=(0.7, 1.0), flip_prob=0.0, erase_prob=0.0, rand_augment=RandAugment(num_ops=0)
        ),
        schedule=VisionScheduleConfig(base_lr=1.6e-2, min_lr=1e-5, warmup_epochs=2),
        train=VisionTrainConfig(epochs=12, batch_size=64, eval_batch_size=360, log_every=22),
    )  # fmt: skip


def digits_mini() -> VisionRecipe:
    """One block, half as wide and executed six times, beside the trained `digits-vit`."""
    base = digits_vit()
    return replace(
        base,
        name="digits-mini",
        model=DeiTStudent(
            width=32, num_heads=4, groups=(6,), patch=4, image_size=16, num_classes=10,
            class_token=False, relative=True, mixes=True, local="kept", local_kernel=3,
            position_std=0.5,
        ),
        targets=TeacherTargets(teacher=TeacherConfig(name="out/digits-vit")),
    )  # fmt: skip


def digits_shrunk() -> VisionRecipe:
    """The trained `digits-vit` with half the weights, beside itself as it was."""
    base = digits_vit()
    transforms = Transforms(mixes=True, kernel=3, rank=4)
    share = ShareConfig(budget=0.5, start="data", transforms=transforms)
    return replace(
        base,
        name="digits-shrunk",
        start=StartConfig(path="out/digits-vit", share=share),
        targets=TeacherTargets(teacher=TeacherConfig(name="out/digits-vit")),
        # A quarter of the teacher's, at which shared weights do not diverge.
        schedule=replace(base.schedule, base_lr=4e-3),
    )


MINI_RECIPES: dict[str, Callable[[], VisionRecipe]] = {
    "digits-vit": digits_vit,
    "digits-mini": digits_mini,
    "digits-shrunk": digits_shrunk,
    **{f"deit-{size}": partial(deit, size) for size in DEIT_SIZES},
    "deit-b-384": partial(deit_384, is_mini=False),
    **{f"mini-deit-{size}": partial(mini_deit, size) for size in DEIT_SIZES},
    "mini-deit-b-384": partial(deit_384, is_mini=True),
    **{f"mini-deit-b-384-{name}": partial(cifar, name) for name in CIFAR_CLASSES},
    **{f"swin-{size}": partial(swin, size) for size in SWIN_SIZES},
    "swin-b-384": partial(swin_384, is_mini=False),
    **{f"mini-swin-{size}": partial(mini_swin, size) for size in SWIN_SIZES},
    "mini-swin-b-384": partial(swin_384, is_mini=True),
}
