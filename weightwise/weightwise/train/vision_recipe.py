"""Recipes of vision models: everything that defines a training on images, in one typed object.

Like those of language models (`weightwise.train.recipe`) they come from Python functions or from
TOML files; unknown keys, wrong types, values out of range and settings that contradict each other
are refused in one line that names the field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from weightwise.images import Mix  # noqa: TC001, pydantic needs them
from weightwise.multiplex.plan import Plan  # noqa: TC001
from weightwise.train.recipe import build, override, read_table
from weightwise.train.recipe_conflicts import difference
from weightwise.train.toml_text import toml_lines
from weightwise.train.vision_config import (
    AugmentationConfig,
    LabelTargets,
    StartConfig,
    StoreTargets,
    StudentConfig,
    Targets,
    TeacherTargets,
)
from weightwise.train.vision_images import ImagesConfig  # noqa: TC001
from weightwise.train.vision_models import Student  # noqa: TC001
from weightwise.vision.deit_config import DeiTConfig

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STRICT = ConfigDict(extra="forbid")
# Published rates are those of a batch of this many images (arXiv 2207.10666, released code).
RATE_BATCH = 512

# Fields that may differ between a run and its continuation, see
# `weightwise.train.recipe_conflicts.FREE_ON_RESUME`.
FREE_ON_RESUME = frozenset(
    {
        "name",
        "images.num_workers",
        "train.eval_every",
        "train.eval_batch_size",
        "train.save_every",
        "train.keep_checkpoints",
        "train.log_every",
        "train.tensorboard",
    }
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VisionOptimizerConfig:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101), by default as in TinyViT's recipes.

    Parameters
    ----------
    kind
        ``adamw``, ``adamw8`` with 3 bytes of state for each parameter (`weightwise.optim.AdamW8`),
        or ``sgd``, gradient descent with momentum ``beta1``, whose decay is a part of the gradient.
    beta1, beta2
        Decay of the running mean of gradients and of their squares, in [0, 1).
    eps
        Added to the root of the second moment, above 0.
    weight_decay
        Decay per step and unit of learning rate, at least 0; matrices and filters only.
    layer_decay
        Learning rate of a block over that of the next one, above 0 and at most 1.
    average_decay
        Share that the moving average of the weights keeps in each step, above 0 and below 1, see
        `weightwise.optim.averaging`; ``None`` keeps no average.
    uses_average
        Whether the average is judged and is the model of a checkpoint. Otherwise it is only kept
        with the state of the optimizer.
    """

    kind: Literal["adamw", "adamw8", "sgd"] = "adamw"
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    eps: float = Field(default=1e-8, gt=0.0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.05, ge=0.0, allow_inf_nan=False)
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    average_decay: float | None = Field(default=None, gt=0.0, lt=1.0)
    uses_average: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.average_decay is not None and self.kind != "adamw":
            raise ValueError(f"kind: expected adamw with average_decay, got {self.kind}")
        if self.uses_average and self.average_decay is None:
            raise ValueError("average_decay: expected a value with uses_average, got none")
        if self.kind == "sgd" and self.beta1 == 0:
            raise ValueError("beta1: expected more than 0 with kind sgd, got 0.0")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VisionScheduleConfig:
    """Linear warm-up, a cosine, and a cool-down; rates are those of a batch of 512 images.

    Parameters
    ----------
    base_lr
        Highest rate, above 0.
    start_lr, min_lr
        Rates before the first and after the last step, 0 to ``base_lr``.
    warmup_epochs
        Epochs of linear rise, at least 0.
    cooldown_epochs
        Last epochs of the run, which have ``min_lr``, at least 0.
    """

    base_lr: float = Field(default=5e-4, gt=0.0, allow_inf_nan=False)
    start_lr: float = Field(default=5e-7, ge=0.0)
    min_lr: float = Field(default=5e-6, ge=0.0)
    warmup_epochs: float = Field(default=0.0, ge=0.0)
    cooldown_epochs: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("start_lr", "min_lr"):
            if getattr(self, name) > self.base_lr:
                raise ValueError(
                    f"{name}: expected at most base_lr {self.base_lr}, got {getattr(self, name)}"
                )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VisionTrainConfig:
    """How long, how much at a time, and what to write when.

    Parameters
    ----------
    epochs
        Passes over the images, at least 1. What does not fill a batch is left out of each.
    batch_size
        Images of a step, over all processes and micro-batches.
    micro_batch_size
        Images that one process takes through the model at a time; divides ``batch_size``, and is
        even where images are mixed. Batch normalization sees so many together, whatever the number
        of processes. ``None`` means the whole share of a process at once.
    dtype
        Type of the products: ``bfloat16`` runs them under autocast. Weights, gradients and
        optimizer state are float32 in either case.
    repeats
        How often an image comes in an epoch, augmented anew each time, in one step if it has room
        (Hoffer et al., arXiv 1901.09335). An epoch is as long as without, so it has fewer images.
    grad_clip
        Largest norm of the gradient over all parameters; 0 sets no limit.
    batch_norm
        What batch normalization goes by in training: the ``batch``, or the ``running`` statistics
        of the start, as in fine-tuning.
    eval_every, save_every
        Steps between evaluations and checkpoints; ``None`` means once an epoch. The last step is
        always evaluated and saved.
    eval_batch_size
        Images that one process evaluates at a time.
    keep_checkpoints
        Newest checkpoints that stay on disk, at least 1.
    log_every
        Steps between rows of training metrics.
    tensorboard
        Also write TensorBoard files (extra ``track``).
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(default=1024, ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    repeats: int = Field(default=1, ge=1)
    grad_clip: float = Field(default=5.0, ge=0.0, allow_inf_nan=False)
    batch_norm: Literal["batch", "running"] = "batch"
    eval_every: int | None = Field(default=None, ge=1)
    save_every: int | None = Field(default=None, ge=1)
    eval_batch_size: int = Field(default=128, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    log_every: int = Field(default=10, ge=1)
    tensorboard: bool = False

    @model_validator(mode="after")
    def _check_micro_batch(self) -> Self:
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size: expected a divisor of batch_size {self.batch_size}, "
                f"got {self.micro_batch_size}"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VisionRecipe:
    """Everything that defines the training of a vision model.

    Parameters
    ----------
    name
        Name of the run; letters, digits, dot, dash and underscore.
    seed
        Seed of initial weights, order, augmentation and draws, 0 to 2^63 - 1. A store brings its
        own seeds of augmentation.
    model, start
        The student, and the weights it begins with; ``None`` draws new ones.
    sharing
        Which blocks of the model share weights beside those that ``model`` says; ``None`` for none.
        With ``start.share`` the run finds it out and writes it down in its checkpoints.
    images, augmentation, mixing
        What it sees. ``None`` mixes nothing.
    targets
        What it learns: labels, soft labels of a store, or those of a teacher.
    optimizer, schedule, train
        How.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(default=1, ge=0, lt=2**63)
    model: Student
    start: StartConfig | None = None
    sharing: Plan | None = None
    images: ImagesConfig
    augmentation: AugmentationConfig = AugmentationConfig()
    mixing: Mix | None = None
    targets: Targets = LabelTargets()
    optimizer: VisionOptimizerConfig = VisionOptimizerConfig()
    schedule: VisionScheduleConfig = VisionScheduleConfig()
    train: VisionTrainConfig

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        train, num_classes = self.train, self.model.build().num_classes
        self._check_epochs()
        micro = train.micro_batch_size or train.batch_size
        if self.mixing is not None and micro % 2:
            raise ValueError(
                f"train.micro_batch_size: expected an even number with mixing, got {micro}"
            )
        known = self.images.source.num_classes
        if known is not None and num_classes < known:
            raise ValueError(
                f"model.num_classes: expected at least {known} for images.source, got {num_classes}"
            )
        top_k = self.targets.top_k if isinstance(self.targets, TeacherTargets) else None
        if top_k is not None and top_k > num_classes:
            raise ValueError(
                f"targets.top_k: expected at most model.num_classes {num_classes}, got {top_k}"
            )
        return self

    @model_validator(mode="after")
    def _check_uses(self) -> Self:
        if self.train.batch_norm == "running" and self.start is None:
            raise ValueError("train.batch_norm: expected batch without a start, got running")
        share = None if self.start is None else self.start.share
        if share is not None and share.budget is None and self.sharing is None:
            config = self.model.build()
            if not isinstance(config, DeiTConfig) or max(config.groups) == 1:
                raise ValueError(
                    "start.share.budget: expected a budget, a plan in sharing, or a DeiT with "
                    "model.groups above 1, got none"
                )
            if share.start == "data":
                raise ValueError("start.share.start: expected first or mean with model.groups")
        if self.train.repeats > 1 and isinstance(self.targets, StoreTargets):
            raise ValueError(
                "train.repeats: expected 1 with targets.kind store, which has an image once an "
                f"epoch, got {self.train.repeats}"
            )
        if self.images.corrupt_share > 0 and not self.needs_labels:
            raise ValueError(
                f"images.corrupt_share: expected 0 with targets.kind {self.targets.kind}, which "
                f"leaves labels out, got {self.images.corrupt_share}"
            )
        return self

    def _check_epochs(self) -> None:
        schedule, epochs = self.schedule, self.train.epochs
        if schedule.warmup_epochs >= epochs:
            raise ValueError(
                f"schedule.warmup_epochs: expected less than train.epochs {epochs}, got "
                f"{schedule.warmup_epochs}"
            )
        if schedule.warmup_epochs + schedule.cooldown_epochs >= epochs:
            raise ValueError(
                f"schedule.cooldown_epochs: expected less than train.epochs {epochs} without "
                f"warm-up, got {schedule.cooldown_epochs}"
            )

    @property
    def needs_labels(self) -> bool:
        """Whether labels of the training images count."""
        return isinstance(self.targets, LabelTargets) or self.targets.hard_share > 0


_ADAPTER = TypeAdapter(VisionRecipe)


def read_vision_recipe(path: Path, overrides: Sequence[str] = ()) -> VisionRecipe:
    """Read a recipe from a TOML file, see `weightwise.train.read_recipe`."""
    return vision_from_dict(override(read_table(path), overrides), origin=str(path))


def vision_from_dict(table: dict[str, Any], *, origin: str) -> VisionRecipe:
    """Build a recipe from nested dicts, see `weightwise.train.from_dict`."""
    model = table.get("model")
    if isinstance(model, dict):  # recipes that are older than the other families name none
        table = {**table, "model": {"kind": StudentConfig.kind, **model}}
    return build(_ADAPTER, VisionRecipe, table, origin)


def vision_to_dict(recipe: VisionRecipe) -> dict[str, Any]:
    """Nested dicts of plain values; settings that are ``None`` are left out."""
    table: dict[str, Any] = _ADAPTER.dump_python(recipe, mode="json", exclude_none=True)
    return table


def vision_to_toml(recipe: VisionRecipe) -> str:
    """Text of a TOML file that `read_vision_recipe` turns into the same recipe."""
    return "\n".join(toml_lines(vision_to_dict(recipe))) + "\n"


def vision_conflict(saved: VisionRecipe, wanted: VisionRecipe) -> str | None:
    """Say why a run cannot go on with another recipe, see `weightwise.train.recipe_conflicts`."""
    return difference(vision_to_dict(saved), vision_to_dict(wanted), free=FREE_ON_RESUME)
