"""Parts of a vision model's recipe: the student, what it begins with, what it sees and learns."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from weightwise.distill import SoftLoss
from weightwise.distill.teachers import TeacherConfig  # noqa: TC001, pydantic needs it
from weightwise.images import Augmentation, RandAugment
from weightwise.vision import VARIANTS, TinyViTConfig

STRICT = ConfigDict(extra="forbid")
Four: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StudentConfig:
    """The model: a variant and what differs from it, or contraction factors alone.

    Parameters
    ----------
    variant
        A name in `weightwise.vision.VARIANTS`; ``None`` needs ``widths``.
    widths, depths, windows, conv_expansion, mlp_expansion, head_width
        Contraction factors, see `weightwise.vision.TinyViTConfig`; ``None`` is the variant's.
    image_size, num_classes, drop_path, mask_padding
        What depends on the task; ``None`` is the variant's.
    """

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
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "variant"}
        given: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
        if self.variant is not None:
            return replace(VARIANTS[self.variant], **given)
        return TinyViTConfig(**given)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StartConfig:
    """Weights to begin with.

    Parameters
    ----------
    path
        Checkpoint, folder of a run, or a file that `weightwise.vision.load_tiny_vit` reads. Where
        windows differ, tables of biases are resized; other contraction factors may not differ.
    class_map
        Text file with a line for each new class: the number of the old one, or -1. ``None`` keeps
        the head where the number of classes is the same, and draws a new one elsewhere.
    """

    path: str
    class_map: str | None = None


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
    """

    kind: Literal["store"] = "store"
    store: str
    on_missing: Literal["cycle", "refuse"] = "cycle"


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
    """

    kind: Literal["teacher"] = "teacher"
    teacher: TeacherConfig
    top_k: int | None = Field(default=None, ge=1)
    value_dtype: Literal["float16", "float32"] = "float16"


Targets: TypeAlias = Annotated[
    LabelTargets | StoreTargets | TeacherTargets, Field(discriminator="kind")
]
