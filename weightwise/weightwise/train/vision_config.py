"""Parts of a vision model's recipe: the student, what it begins with, what it sees and learns."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from weightwise.distill import SoftLoss
from weightwise.distill.matching import LayerMatch
from weightwise.distill.relations import RelationConfig
from weightwise.distill.teachers import TeacherConfig  # noqa: TC001, pydantic needs it
from weightwise.images import Augmentation, RandAugment
from weightwise.multiplex.plan import Transforms
from weightwise.vision import VARIANTS, TinyViTConfig

STRICT = ConfigDict(extra="forbid")
Four: TypeAlias = tuple[int, int, int, int]
# Fields of students that no model has: what tells them apart, and how weights begin.
NOT_OF_THE_MODEL = ("kind", "variant", "position_std")


def given_settings(student: Any) -> dict[str, Any]:
    """Settings of a model that a recipe gives a value."""
    own = {one.name: getattr(student, one.name) for one in fields(student)}
    return {
        name: value
        for name, value in own.items()
        if value is not None and name not in NOT_OF_THE_MODEL
    }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StudentConfig:
    """A TinyViT: a variant and what differs from it, or contraction factors alone.

    Parameters
    ----------
    kind
        Tells this class from those of `weightwise.train.vision_models`.
    variant
        A name in `weightwise.vision.VARIANTS`; ``None`` needs ``widths``.
    widths, depths, windows, conv_expansion, mlp_expansion, head_width
        Contraction factors, see `weightwise.vision.TinyViTConfig`; ``None`` is the variant's.
    image_size, num_classes, drop_path, mask_padding
        What depends on the task; ``None`` is the variant's.
    """

    kind: Literal["tinyvit"] = "tinyvit"
    variant: Literal["5m", "11m", "21m", "21m-384", "21m-512"] | None = None
    widths: Four | None = None
    depths: Four | None = None
    windows: tuple[int, int, int] | None = None
    conv_expansion: float | None = None
    mlp_expansion: float | None = None
    head_width: int | None = None
    image_size: int | None = Field(default=None, ge=32, le=4096)
    num_classes: int | None = None
    drop_path: float | None = None
    mask_padding: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.variant is None and self.widths is None:
            raise ValueError("variant: expected a name, or widths, got none")
        self.build()
        return self

    def build(self) -> TinyViTConfig:
        """All settings of the model."""
        given = given_settings(self)
        if self.variant is not None:
            return replace(VARIANTS[self.variant], **given)
        return TinyViTConfig(**given)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ShareConfig:
    """How a trained model's blocks are brought to share weights, see `weightwise.multiplex`.

    Parameters
    ----------
    budget
        Most unique parameters of the result: their number, or below 1 their share of the model's.
        ``None`` where the recipe has a plan in ``sharing``, or a DeiT with ``model.groups`` that is
        begun with one that shares nothing (`weightwise.vision.deit_adapt.to_mini`).
    by
        How groups are chosen: ``even`` runs, or ``sensitivity`` to merging, measured on images.
    start
        Weights of a group: the ``first`` block's, their ``mean``, or those that change outputs
        least on images (``data``).
    transforms
        What each execution gets of its own beside its normalizations.
    keep
        Parts of parameters' names that stay each block's own.
    num_images
        Training images, as they are judged, that measurements are made on, at least 1.
    """

    budget: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    by: Literal["even", "sensitivity"] = "even"
    start: Literal["first", "mean", "data"] = "mean"
    transforms: Transforms = Transforms()
    keep: tuple[str, ...] = ()
    num_images: int = Field(default=256, ge=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StartConfig:
    """Weights to begin with.

    Parameters
    ----------
    path
        Checkpoint, folder of a run, or a file of weights of the model's family. Where resolution
        and windows differ, tables of biases and position embeddings are resized; other settings
        that weights depend on may not differ.
    class_map
        Text file with a line for each new class: the number of the old one, or -1. ``None`` keeps
        the head where the number of classes is the same, and draws a new one elsewhere.
    share
        How its blocks are brought to share weights; ``None`` leaves them as they are.
    """

    path: str
    class_map: str | None = None
    share: ShareConfig | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentationConfig:
    """What happens to an image, see `weightwise.images.Augmentation`.

    Parameters
    ----------
    scale, ratio, flip_prob, jitter, erase_prob
        As there.
    rand_augment
        Settings of the operations, or ``"none"``.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_prob: float = 0.5
    rand_augment: RandAugment | Literal["none"] = RandAugment()
    jitter: float = 0.4
    erase_prob: float = 0.25

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.build()
        return self

    def build(self) -> Augmentation:
        """What the transform takes."""
        return Augmentation(
            scale=self.scale, ratio=self.ratio, flip_prob=self.flip_prob, jitter=self.jitter,
            rand_augment=None if self.rand_augment == "none" else self.rand_augment,
            erase_prob=self.erase_prob,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LabelTargets:
    """Learn the classes of the images.

    Parameters
    ----------
    kind
        Tells this class from the others.
    smoothing
        Share of targets spread over all classes, 0 to 1.
    """

    kind: Literal["labels"] = "labels"
    smoothing: float = Field(default=0.1, ge=0.0, le=1.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SoftTargets:
    """Learn what a teacher says: how it is compared, see `weightwise.distill.SoftLoss`.

    Parameters
    ----------
    residual, temperature, smoothing, hard_share
        As there.
    """

    residual: Literal["uniform", "zeros"] = "uniform"
    temperature: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    smoothing: float = Field(default=0.0, ge=0.0, le=1.0)
    hard_share: float = Field(default=0.0, ge=0.0, le=1.0)

    @property
    def loss(self) -> SoftLoss:
        """The comparison."""
        return SoftLoss(
            residual=self.residual, temperature=self.temperature, smoothing=self.smoothing,
            hard_share=self.hard_share,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RelationTargets:
    """Learn relations of a teacher's tokens too, see `weightwise.train.vision_relations`.

    Parameters
    ----------
    teacher
        Whose, and what it sees; ``None`` for that of the predictions.
    student_layers, teacher_layers
        Layers that are compared, in the order of their execution from 0, both ascending and as
        many. ``None`` compares as many as there are, evenly within each stage.
    loss
        Losses and their weights, without projections.
    """

    teacher: TeacherConfig | None = None
    student_layers: tuple[int, ...] | None = None
    teacher_layers: tuple[int, ...] | None = None
    loss: RelationConfig = RelationConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        student, teacher = self.student_layers, self.teacher_layers
        if (student is None) != (teacher is None):
            raise ValueError("student_layers: expected them and teacher_layers, got one of the two")
        if student is not None and teacher is not None:
            LayerMatch(student=student, teacher=teacher)
        if self.loss.hidden == "projected" and self.loss.gamma > 0:
            raise ValueError(
                "loss.hidden: expected a form without weights of its own, got projected"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StoreTargets(SoftTargets):
    """Learn what a teacher has said, and see the images as it did.

    Parameters
    ----------
    kind
        Tells this class from the others.
    store
        Folder of the soft labels.
    on_missing
        What to do about epochs and images that are not stored, see
        `weightwise.distill.SoftLabels`.
    relations
        Learn these too, from a teacher of their own; ``None`` for none.
    """

    kind: Literal["store"] = "store"
    store: str
    on_missing: Literal["cycle", "refuse"] = "cycle"
    relations: RelationTargets | None = None

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        if self.relations is not None and self.relations.teacher is None:
            raise ValueError("relations.teacher: expected one beside a store, got none")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TeacherTargets(SoftTargets):
    """Learn from a teacher that sees every image beside the student.

    Without mixing its answers are those that a store of the same base seed as ``seed`` would hold.
    Where images are mixed it sees them mixed, while a store's labels are mixed afterwards.

    Parameters
    ----------
    kind
        Tells this class from the others.
    teacher
        Who, and what it sees.
    top_k
        Classes that are taken over, the most probable ones; ``None`` takes all.
    value_dtype
        What their probabilities are rounded to.
    relations
        Learn these too; ``None`` for none.
    """

    kind: Literal["teacher"] = "teacher"
    teacher: TeacherConfig
    top_k: int | None = Field(default=None, ge=1)
    value_dtype: Literal["float16", "float32"] = "float16"
    relations: RelationTargets | None = None


Targets: TypeAlias = Annotated[
    LabelTargets | StoreTargets | TeacherTargets, Field(discriminator="kind")
]
