"""What a sweep trains: a TOML file that names lists of settings, and the runs they multiply to.

::

    name = "first"
    recipe = "demo"                    # built-in recipe, or a TOML file beside this one
    set = ["train.eval_batches=32"]    # changes to it, for all runs
    tokens = [1e6, 2e6]                # D; steps follow, the batch stays
    formats = ["none", "e1m1", "e4m3"]
    blocks = ["channel", 32]
    seeds = [1]

    [[sizes]]                          # N
    name = "narrow"
    width = 32
    ffn = 96

    [[exclude]]                        # runs of the product to leave out
    format = "e4m3"
    block = 32

    [[extra]]                          # single runs beside the product
    size = "narrow"
    tokens = 1e6
    format = "e1m1"
    block = "tensor"

Tokens are rounded to whole steps. Without quantization (``none``, or ``bf16``) blocks, targets,
roundings and axes mean nothing, so there is one run for all of them; formats that say themselves
who shares a scale (``mxfp4``, ``e4m3@32``) have one for all blocks.
"""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from weightwise.numerics import PrecisionConfig, ScaledFormat, Target, parse
from weightwise.numerics.reference import Rounding  # noqa: TC001, pydantic needs it at run time
from weightwise.numerics.scaling import names_scales
from weightwise.train.recipe_errors import explain

if TYPE_CHECKING:
    from pathlib import Path

STRICT = ConfigDict(extra="forbid")
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
# Not quantized: the matrix products have the recipe's `train.dtype`.
UNQUANTIZED = ("none", "bf16", "fp16", "fp32")
DEFAULT_TARGETS = PrecisionConfig().targets
# Settings that the lists of a sweep decide.
DECIDED = ("name", "seed", "train.steps", "precision")


def _block(value: Any) -> int | str:
    if value in ("channel", "tensor") or (type(value) is int and value >= 1):
        return value  # type: ignore[no-any-return]
    raise ValueError(f"expected a number of at least 1, 'channel' or 'tensor', got {value!r}")


def _format(name: str) -> str:
    if name.lower() in UNQUANTIZED:
        return "none"
    return ScaledFormat.parse(name).name if names_scales(name) else parse(name).name.lower()


def _targets(targets: tuple[Target, ...]) -> tuple[Target, ...]:
    if len(set(targets)) < len(targets):
        raise ValueError(f"expected each target at most once, got {', '.join(targets)}")
    return targets


def _change(text: str) -> str:
    key, equals, _ = text.partition("=")
    key = key.strip()
    if not key or not equals:
        raise ValueError(f"expected key=value, got {text!r}")
    for decided in DECIDED:
        if key == decided or key.startswith(f"{decided}."):
            raise ValueError(f"expected no {decided}, the sweep decides it, got {text!r}")
    return text


Tokens = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Format = Annotated[str, AfterValidator(_format)]
# Elements that share a scale.
Block = Annotated[int | Literal["channel", "tensor"], PlainValidator(_block)]
Targets = Annotated[tuple[Target, ...], Field(min_length=1), AfterValidator(_targets)]
Axis = Literal["contraction", "last"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Changes = tuple[Annotated[str, AfterValidator(_change)], ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SizeConfig:
    """One model size of a sweep; what is left out is as in the sweep's recipe.

    Parameters
    ----------
    name
        Part of the names of its runs.
    recipe
        Take width, layers, feed-forward width and heads from this built-in recipe or TOML file.
    width, layers, ffn, heads
        Model width d, blocks, inner width d_ff and query heads, each at least 1.
    set
        Further changes to the recipe, such as ``"schedule.peak_lr=1e-3"``.
    """

    name: str = Field(pattern=NAME)
    recipe: str | None = None
    width: int | None = Field(default=None, ge=1)
    layers: int | None = Field(default=None, ge=1)
    ffn: int | None = Field(default=None, ge=1)
    heads: int | None = Field(default=None, ge=1)
    set: Changes = ()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExtraConfig:
    """A single run beside the product.

    Parameters
    ----------
    size
        Name of one of the sizes; may be left out if there is only one.
    tokens, format, block, targets, rounding, axis
        One entry of the list of that name.
    seed
        Seed; the first of the sweep by default.
    """

    size: str | None = None
    tokens: Tokens
    format: Format
    block: Block = "channel"
    targets: Targets = DEFAULT_TARGETS
    rounding: Rounding = "even"
    axis: Axis = "contraction"
    seed: Seed | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExcludeConfig:
    """Runs of the product that are left out: those that agree in all that is given here.

    Parameters
    ----------
    size, tokens, format, block, targets, rounding, axis, seed
        One entry of the list of that name.
    """

    size: str | None = None
    tokens: Tokens | None = None
    format: Format | None = None
    block: Block | None = None
    targets: Targets | None = None
    rounding: Rounding | None = None
    axis: Axis | None = None
    seed: Seed | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SweepConfig:
    """A sweep as its file says it.

    Parameters
    ----------
    name
        Name of the sweep; letters, digits, dot, dash and underscore.
    recipe
        Built-in recipe, or path of a TOML file, seen from the folder of the sweep's file.
    set
        Changes to the recipe for all runs, such as ``"train.eval_batches=32"``.
    sizes
        Model sizes; by default that of the recipe.
    tokens
        Training tokens D, above 0, rounded to whole steps.
    formats
        Number formats, with scales (``mxfp4``) or without; ``none`` or ``bf16`` without
        quantization.
    blocks
        Elements that share a scale: a number, ``channel`` or ``tensor``.
    targets
        Lists of operands to quantize, see `weightwise.numerics.Target`.
    roundings, axes
        Ways to round, and axes that groups run along, see `weightwise.numerics.PrecisionConfig`.
    seeds
        Seeds of weights and data order, at least 0.
    exclude, extra
        Runs of the product to leave out, and single runs beside it.
    """

    name: str = Field(pattern=NAME)
    recipe: str
    set: Changes = ()
    sizes: tuple[SizeConfig, ...] = Field(default=(SizeConfig(name="base"),), min_length=1)
    tokens: tuple[Tokens, ...] = Field(min_length=1)
    formats: tuple[Format, ...] = Field(default=("none",), min_length=1)
    blocks: tuple[Block, ...] = Field(default=("channel",), min_length=1)
    targets: tuple[Targets, ...] = Field(default=(DEFAULT_TARGETS,), min_length=1)
    roundings: tuple[Rounding, ...] = Field(default=("even",), min_length=1)
    axes: tuple[Axis, ...] = Field(default=("contraction",), min_length=1)
    seeds: tuple[Seed, ...] = Field(default=(1,), min_length=1)
    exclude: tuple[ExcludeConfig, ...] = ()
    extra: tuple[ExtraConfig, ...] = ()


_ADAPTER = TypeAdapter(SweepConfig)


def read_config(path: Path) -> SweepConfig:
    """Read the file of a sweep.

    Parameters
    ----------
    path
        The TOML file.

    Raises
    ------
    ValueError
        If the file cannot be read or says something that a sweep cannot; one line with file,
        field, what was expected and what was found.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: expected a readable file, got {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected TOML, got {error}") from error
    try:
        return _ADAPTER.validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error, SweepConfig, table)}") from error
