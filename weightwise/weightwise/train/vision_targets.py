"""What a vision model is asked for: labels, what a teacher has said, or what one says now.

A target says which views of an image there are beside the student's, with which seeds images are
augmented, and what the loss of a batch is.
"""

# Shapes: B images of a batch, C classes, K classes of an image, S side of an image

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from weightwise.distill import (
    SoftLabels,
    SparseTarget,
    StoreConfig,
    as_tensors,
    augmentation_seeds,
    soft_cross_entropy,
    top_k,
)
from weightwise.distill.replay import Replay, StoredSeeds, replay_of
from weightwise.distill.teachers import load_teacher
from weightwise.train.recipe_conflicts import difference
from weightwise.train.vision_config import LabelTargets, StoreTargets
from weightwise.train.vision_images import named_by_number
from weightwise.train.vision_start import load_classifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from weightwise.distill import SoftLoss
    from weightwise.distill.teachers import Teacher
    from weightwise.images import Batch, Source, View
    from weightwise.images.loader import SeedFunction
    from weightwise.train.vision_config import RelationTargets
    from weightwise.train.vision_images import PreparedImages
    from weightwise.train.vision_recipe import VisionRecipe


class Target(Protocol):
    """What a student is asked for."""

    @property
    def views(self) -> tuple[View, ...]:
        """What images are shown as beside the student's view."""

    @property
    def identity(self) -> str:
        """Tells one target from another of the same settings."""

    @property
    def relation_teacher(self) -> Teacher | None:
        """Whose relations are learnt too, see `weightwise.train.vision_relations`."""

    def source(self, images: PreparedImages) -> Source:
        """Images to train on, under the names that the target knows."""

    @property
    def seeds(self) -> SeedFunction:
        """Seeds of the augmentations."""

    def loss(self, logits_BC: Tensor, batch: Batch, epoch: int) -> Tensor:
        """Mean loss of a batch in nats."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The classes of the images.

    Parameters
    ----------
    smoothing
        Share of targets spread over all classes.
    """

    smoothing: float

    views: tuple[View, ...] = ()
    identity: str = ""
    relation_teacher: None = None

    def source(self, images: PreparedImages) -> Source:
        """Images as they are."""
        return images.train

    @property
    def seeds(self) -> SeedFunction:
        """Those that a store of the same base seed would have."""
        return augmentation_seeds

    def loss(self, logits_BC: Tensor, batch: Batch, epoch: int) -> Tensor:  # noqa: ARG002
        """Cross-entropy with labels, mixed as the images are."""
        device = logits_BC.device
        target = SparseTarget.one_hot(batch.labels.to(device), logits_BC.shape[1])
        if batch.mixing is not None:
            partner_B, share_B = (
                one.to(device) for one in (batch.mixing.partner, batch.mixing.lam)
            )
            target = target.mix(target.rows(partner_B), share_B)
        return soft_cross_entropy(logits_BC, target.smooth(self.smoothing))


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a teacher has said.

    Parameters
    ----------
    labels
        The store.
    comparison
        Loss of logits and stored targets.
    relation_teacher
        Whose relations are learnt too; ``None`` for none.
    """

    labels: SoftLabels
    comparison: SoftLoss
    relation_teacher: Teacher | None = None

    views: tuple[View, ...] = ()

    @property
    def identity(self) -> str:
        """What the store says about itself, and who else teaches."""
        config = self.labels.config
        also = "" if self.relation_teacher is None else f" {self.relation_teacher.name}"
        return f"{config.teacher} {config.base_seed} {config.k} {config.fingerprint}{also}"

    def source(self, images: PreparedImages) -> Source:
        """Images under their names, or under their numbers where the store has these."""
        if self.labels.config.keys == "name":
            return images.train
        return named_by_number(images.train, images.numbers)

    @property
    def seeds(self) -> SeedFunction:
        """Those that the teacher's images had."""
        return StoredSeeds(labels=self.labels)

    def loss(self, logits_BC: Tensor, batch: Batch, epoch: int) -> Tensor:
        """Cross-entropy with what is stored."""
        stored = as_tensors(self.labels.gather(epoch, self._keys(batch.keys)))
        return _compare(self.comparison, logits_BC, stored, batch, is_mixed_already=False)

    def _keys(self, keys: Sequence[str]) -> Sequence[str] | list[int]:
        return list(keys) if self.labels.config.keys == "name" else [int(key) for key in keys]


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What a teacher says.

    Parameters
    ----------
    teacher
        Asked about every batch.
    kept
        What is kept of its logits.
    comparison
        Loss of logits and kept targets.
    relation_teacher
        Whose relations are learnt too, possibly the same; ``None`` for none.
    """

    teacher: Teacher
    kept: StoreConfig
    comparison: SoftLoss
    relation_teacher: Teacher | None = None

    @property
    def views(self) -> tuple[View, ...]:
        """What the teacher sees."""
        return (self.teacher.view,)

    @property
    def identity(self) -> str:
        """Names and digests of the teachers."""
        other = self.relation_teacher
        also = "" if other is None or other is self.teacher else f" {other.name}"
        return self.teacher.name + also

    def source(self, images: PreparedImages) -> Source:
        """Images as they are."""
        return images.train

    @property
    def seeds(self) -> SeedFunction:
        """Those that a store of the same base seed would have."""
        return augmentation_seeds

    def loss(self, logits_BC: Tensor, batch: Batch, epoch: int) -> Tensor:  # noqa: ARG002
        """Cross-entropy with what the teacher says of its own view."""
        return self.compare(logits_BC, self.teacher(batch.views[1]), batch)

    def compare(self, logits_BC: Tensor, said_BC: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy with logits of the teacher."""
        index_BK, value_BK = top_k(said_BC, self.kept)
        said = (
            torch.from_numpy(index_BK.astype("int64")),
            torch.from_numpy(value_BK.astype("float32")),
            None,
        )
        return _compare(self.comparison, logits_BC, said, batch, is_mixed_already=True)


def _compare(
    comparison: SoftLoss,
    logits_BC: Tensor,
    said: tuple[Tensor, Tensor, Tensor | None],
    batch: Batch,
    *,
    is_mixed_already: bool,
) -> Tensor:
    device = logits_BC.device
    index_BK, value_BK, stored_BK = (one if one is None else one.to(device) for one in said)
    assert index_BK is not None
    assert value_BK is not None
    mixing = None if is_mixed_already else batch.mixing
    return comparison(
        logits_BC, index_BK, value_BK, stored_BK=stored_BK,
        label_B=batch.labels.to(device) if comparison.hard_share else None,
        partner_B=None if mixing is None else mixing.partner.to(device),
        share_B=1.0 if mixing is None else mixing.lam.to(device),
    )  # fmt: skip


def open_target(recipe: VisionRecipe) -> Target:
    """Open what a recipe's student is asked for.

    Raises
    ------
    ValueError
        If a store is another one than the recipe needs or was made with another augmentation, or
        a teacher cannot be had or has other classes.
    """
    targets, num_classes = recipe.targets, recipe.model.build().num_classes
    if isinstance(targets, LabelTargets):
        return Labels(smoothing=targets.smoothing)
    if isinstance(targets, StoreTargets):
        return _open_store(recipe, targets, num_classes)
    teacher = load_teacher(targets.teacher, load_classifier)
    if teacher.num_classes != num_classes:
        raise ValueError(
            f"targets.teacher: expected {num_classes} classes as model.num_classes, got "
            f"{teacher.num_classes}"
        )
    kept = StoreConfig(
        classes=num_classes, k=targets.top_k or num_classes, value_dtype=targets.value_dtype
    )
    return Taught(
        teacher=teacher, kept=kept, comparison=targets.loss,
        relation_teacher=_relation_teacher(targets.relations, teacher),
    )  # fmt: skip


def _relation_teacher(config: RelationTargets | None, teacher: Teacher | None) -> Teacher | None:
    """Whose relations are learnt; the given teacher's where no other one is named."""
    if config is None or config.teacher is None:
        return None if config is None else teacher
    return load_teacher(config.teacher, load_classifier)


def _open_store(recipe: VisionRecipe, targets: StoreTargets, num_classes: int) -> Stored:
    path = Path(targets.store)
    labels = SoftLabels(path, on_missing=targets.on_missing, classes=num_classes)
    if labels.config.kind != "probabilities":
        raise ValueError(f"{path}: kind: expected probabilities, got logits")
    replay = Replay(augmentation=recipe.augmentation.build(), decoding=recipe.images.decoding)
    _check_replay(path, replay, labels.config)
    missing = sorted(set(range(recipe.train.epochs)) - set(labels.epochs))
    if targets.on_missing == "refuse" and missing:
        raise ValueError(
            f"{path}: epochs: expected all {recipe.train.epochs} of train.epochs, epoch "
            f"{missing[0]} is not stored; targets.on_missing cycle uses others again"
        )
    other = _relation_teacher(targets.relations, None)
    return Stored(labels=labels, comparison=targets.loss, relation_teacher=other)


def _check_replay(path: Path, ours: Replay, config: StoreConfig) -> None:
    """Refuse labels of other images than this run would make."""
    fingerprint, canary = ours.identity()
    if config.fingerprint != fingerprint:
        settings = (asdict(replay_of(config)), asdict(ours))
        found = difference(*settings, free=(), where=f"the images of {path}")
        raise ValueError(found or f"{path}: fingerprint: expected {fingerprint}, another version")
    if config.canary != canary:
        raise ValueError(
            f"{path}: canary: expected {canary[:12]}, got {config.canary[:12]}: the same "
            "augmentation gives other pixels here; decoders or versions of Pillow or NumPy differ"
        )
