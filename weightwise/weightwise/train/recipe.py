"""Recipes: everything that defines a training run, in one typed object.

A recipe comes from a Python function (`weightwise.recipes`) or from a TOML file whose tables
are the fields below. Unknown keys, wrong types and values out of range are refused in one line
that names file and field; nothing is converted silently.
"""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from weightwise.fp8.config import Fp8Training, Level  # noqa: TC001, pydantic needs them
from weightwise.lm import LatentConfig, ModelConfig, MoEConfig, layer_groups
from weightwise.multiplex import Plan  # noqa: TC001, pydantic needs it
from weightwise.numerics import PrecisionConfig
from weightwise.optim import OptimizerConfig, ScheduleConfig
from weightwise.train.data import DataConfig
from weightwise.train.post_config import DistillationConfig, PreferenceConfig, TrainingData
from weightwise.train.recipe_errors import explain
from weightwise.train.toml_text import toml_lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STRICT = ConfigDict(extra="forbid")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainConfig:
    """How long, how much at a time, and what to write when.

    Parameters
    ----------
    steps
        Optimizer steps of the run, at least 1.
    batch_size
        Sequences of one step, over all processes and micro-batches.
    micro_batch_size
        Sequences that one process takes through the model at a time; divides ``batch_size``.
        ``None`` means the whole share of a process at once.
    seq_length
        Tokens T of a sequence, at least 1 and at most the model's ``max_length``.
    dtype
        Type of the matrix products: ``bfloat16`` runs them under autocast. Weights, gradients
        and optimizer state are float32 in either case.
    grad_clip
        Largest norm of the gradient over all parameters, above 0; longer ones are scaled down.
    eval_every
        Steps between evaluations; the last step is always evaluated.
    eval_batches
        Evaluate on this many batches of held-out text, or all if there are fewer.
    save_every
        Steps between checkpoints; the last step is always saved.
    keep_checkpoints
        Newest checkpoints that stay on disk, at least 1.
    log_every
        Steps between rows of training metrics.
    strategy
        With more than one process: ``ddp`` keeps the model in each, ``fsdp`` shards it.
    expert_parallel
        Processes over which the specialised experts of a layer are spread, at least 1; divides
        the number of processes and that of experts.
    fp8
        Train linear layers in 8 bits: ``"O1"``, ``"O2"`` or ``"O3"``, see `weightwise.fp8.prepare`,
        or a table with ``level`` and what differs from it. ``None`` does not.
    recompute
        Compute the activations of blocks again in the backward pass instead of keeping them.
    tensorboard
        Also write TensorBoard files (extra ``track``).
    """

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    seq_length: int = Field(ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    grad_clip: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    eval_every: int = Field(default=100, ge=1)
    eval_batches: int = Field(default=8, ge=1)
    save_every: int = Field(default=100, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    log_every: int = Field(default=10, ge=1)
    strategy: Literal["ddp", "fsdp"] = "ddp"
    expert_parallel: int = Field(default=1, ge=1)
    fp8: Level | Fp8Training | None = None
    recompute: bool = False
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
class Recipe:
    """Everything that defines a training run.

    Parameters
    ----------
    name
        Name of the run; letters, digits, dot, dash and underscore.
    seed
        Seed of initial weights, data order and draws, at least 0.
    start
        Checkpoint, or folder of a run, whose weights and tokenizer the run begins with; ``None``
        draws new weights. ``model`` must have the same weights, see
        `weightwise.train.start.FREE_AT_START` for what may differ.
    sharing
        Which blocks of the model share their weights; ``None`` for none.
    model, data, optimizer, schedule, precision, train
        Settings of the parts. ``precision`` says which operands of the linear layers are
        quantized, and how; by default none. ``data`` is text, or with the kinds ``chats`` and
        ``preferences`` what comes after it; these need a ``start``.
    distillation
        A teacher beside text; ``None`` for none.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(default=1, ge=0, lt=2**63)
    start: str | None = None
    model: ModelConfig
    sharing: Plan | None = None
    data: TrainingData = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    precision: PrecisionConfig = PrecisionConfig()
    train: TrainConfig
    distillation: DistillationConfig | None = None

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if self.train.seq_length > self.model.max_length:
            raise ValueError(
                f"train.seq_length: expected at most model.max_length {self.model.max_length}, "
                f"got {self.train.seq_length}"
            )
        return self

    @model_validator(mode="after")
    def _check_fp8(self) -> Self:
        train = self.train
        if train.fp8 is None:
            return self
        others = {
            "train.strategy": (train.strategy, "ddp"),
            "train.expert_parallel": (train.expert_parallel, 1),
            "precision.format": (self.precision.format, None),
            "optimizer.average_decay": (self.optimizer.average_decay, None),
        }
        for name, (value, expected) in others.items():
            if value != expected:
                raise ValueError(f"{name}: expected {expected} with train.fp8, got {value}")
        return self

    @model_validator(mode="after")
    def _check_sharing(self) -> Self:
        if self.sharing is None:
            return self
        train = self.train
        others = {
            "train.strategy": (train.strategy, "ddp"),
            "train.expert_parallel": (train.expert_parallel, 1),
            "train.fp8": (train.fp8, None),
            "precision.format": (self.precision.format, None),
        }
        for name, (value, expected) in others.items():
            if value != expected:
                raise ValueError(f"{name}: expected {expected} with sharing, got {value}")
        return self

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        data = self.data
        if isinstance(data, DataConfig):
            data.check_annealing(self.schedule.anneal_from)
            return self
        if self.distillation is not None:
            raise ValueError(f"distillation: expected data of kind text, got {data.kind}")
        if self.start is None:
            raise ValueError(f"start: expected a checkpoint for data of kind {data.kind}, got none")
        if isinstance(data, PreferenceConfig):
            self._check_preferences(data)
        return self

    def _check_preferences(self, data: PreferenceConfig) -> None:
        needs_average = data.reference == "average"
        if needs_average and self.optimizer.average_decay is None:
            raise ValueError("data.reference: expected start without optimizer.average_decay")
        is_sharded = self.train.strategy == "fsdp" or self.train.expert_parallel > 1
        if is_sharded and (needs_average or data.online is not None):
            raise ValueError(
                "train.strategy: expected ddp and train.expert_parallel 1 with data.online or "
                "data.reference average: both take whole weights"
            )

    @model_validator(mode="after")
    def _check_shared_weights(self) -> Self:
        shares = any(one.share_up and size > 1 for one, size in latents(self.model))
        if shares and self.train.strategy == "fsdp":
            raise ValueError(
                "train.strategy: expected ddp with model.attention.share_up: a block's weights "
                "are not at hand in other blocks under fsdp"
            )
        return self

    @model_validator(mode="after")
    def _check_experts(self) -> Self:
        ffn, spread = self.model.ffn, self.train.expert_parallel
        if not isinstance(ffn, MoEConfig):
            if spread > 1:
                raise ValueError(
                    f"train.expert_parallel: expected 1 for a model without experts, got {spread}"
                )
        elif ffn.num_experts % spread:
            raise ValueError(
                "train.expert_parallel: expected a divisor of model.ffn.num_experts "
                f"{ffn.num_experts}, got {spread}"
            )
        return self


_ADAPTER = TypeAdapter(Recipe)


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a TOML file.

    Parameters
    ----------
    path
        The file.
    overrides
        Changes such as ``"train.steps=100"``, see `override`.

    Raises
    ------
    ValueError
        If the file cannot be read or says something that a recipe cannot; one line with file,
        field, what was expected and what was found.
    """
    return from_dict(override(read_table(path), overrides), origin=str(path))


def read_table(path: Path) -> dict[str, Any]:
    """Read a TOML file into nested dicts.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: expected a readable file, got {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected TOML, got {error}") from error


def from_dict(table: dict[str, Any], *, origin: str) -> Recipe:
    """Build a recipe from nested dicts, checking every value.

    Parameters
    ----------
    table
        As `to_dict` gives it.
    origin
        File or recipe name that messages start with.

    Raises
    ------
    ValueError
        If a key is unknown or missing, or a value has the wrong type or is out of range.
    """
    return build(_ADAPTER, Recipe, table, origin)


def build(adapter: TypeAdapter[T], cls: type[T], table: dict[str, Any], origin: str) -> T:
    """Build an object of a dataclass from nested dicts, see `from_dict`."""
    try:
        # By way of JSON, pydantic's strict mode takes lists for tuples and text for
        # enumerations, which TOML has no types for, and converts nothing else.
        return adapter.validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        raise ValueError(f"{origin}: {explain(error, cls, table)}") from error


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Nested dicts of plain values; settings that are ``None`` are left out."""
    table: dict[str, Any] = _ADAPTER.dump_python(recipe, mode="json", exclude_none=True)
    return table


def to_toml(recipe: Recipe) -> str:
    """Text of a TOML file that `read_recipe` turns into the same recipe."""
    return "\n".join(toml_lines(to_dict(recipe))) + "\n"


def override(table: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Change values in a nested dict.

    Parameters
    ----------
    table
        Nested dicts; not modified.
    changes
        Each ``dotted.key=value`` with a TOML value. Text that is no TOML value is taken as a
        string, so quotes may be left out, and ``none`` takes the key away, which restores the
        default.

    Raises
    ------
    ValueError
        If a change has no ``=``, or its key leads through a value that is no table.
    """
    result: dict[str, Any] = json.loads(json.dumps(table, default=str))
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--set: expected key=value, got {change!r}")
        *parents, last = key.strip().split(".")
        inner = result
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ValueError(  # noqa: TRY004, what a user can cause is a ValueError
                    f"--set: expected a table at {parent!r}, got {change!r}"
                )
        if text.strip() == "none":
            inner.pop(last, None)
        else:
            inner[last] = _toml_value(text)
    return result


def latents(model: ModelConfig) -> list[tuple[LatentConfig, int]]:
    """Settings and layers of all groups that keep latents."""
    groups = [(group.attention, group.num_layers) for group in layer_groups(model)]
    return [(one, size) for one, size in groups if isinstance(one, LatentConfig)]


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()
